"""The main job at small scale: traces made from seeds, and parts of real ones, against the simulators of tests/trace_sim."""
import json

import kvt
import pytest
import simulate
from harness import KIB, MIB, cli, cli_json, format_image

REQUIRED = {"requests", "blocks", "usable_prefix_hits", "wrong_bytes", "misses", "bytes_put", "bytes_got", "write_amplification",
            "gpu_seconds_saved", "latency_us"}


def replay(trace, url, *options, block=16 * KIB):
    return cli_json("replay", trace, "--url", url, "--block-bytes", str(block), "--json", *options)


def assert_exact(report, result):
    assert report["wrong_bytes"] == 0
    assert (report["requests"], report["blocks"], report["usable_prefix_hits"]) == (
        result.requests, result.references, result.prefix_hits)


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_hits(work, any_url, seed):
    """On a store that is large enough, hits are an infinite cache's: over each transport, stable or not, and once more warm."""
    trace = kvt.generate(seed, 250)
    kvt.write(trace, work / "trace.kvt")
    result = simulate.infinite(trace)
    assert result.unique * 16 * KIB < 100 * MIB, "the trace must fit the store"
    report = replay(work / "trace.kvt", any_url, *(["--ack", "stable"] if seed == 2 else []))
    assert REQUIRED <= set(report)
    assert_exact(report, result)
    assert report["bytes_got"] == result.prefix_hits * 16 * KIB
    assert report["bytes_put"] == result.unique * 16 * KIB
    assert report["gpu_seconds_saved"] > 0
    for op in ("get", "put", "exists"):
        assert 0 < report["latency_us"][op]["p50"] <= report["latency_us"][op]["p99"]
    warm = replay(work / "trace.kvt", any_url)
    assert (warm["usable_prefix_hits"], warm["wrong_bytes"], warm["bytes_put"]) == (result.references, 0, 0)


def test_formats_agree(work, start_daemon):
    """.kvt, .kvt.xz and the Mooncake JSON lines, plain and .xz, are the same requests."""
    format_image(work / "image", 128 * MIB)
    daemon = start_daemon(work, [work / "image"])
    trace = kvt.generate(7, 150)
    result = simulate.infinite(trace)
    for name, write in (("a.kvt", kvt.write), ("b.kvt.xz", kvt.write), ("c.jsonl", kvt.write_mooncake),
                        ("d.jsonl.xz", kvt.write_mooncake)):
        write(trace, work / name)
        assert_exact(replay(work / name, daemon.tcp, "--space", name, block=4 * KIB), result)


def test_requests_option(work, any_url):
    trace = kvt.generate(8, 200)
    kvt.write(trace, work / "trace.kvt")
    assert_exact(replay(work / "trace.kvt", any_url, "--requests", "90", block=4 * KIB), simulate.infinite(trace.head(90)))


def test_report_that_cannot_be_written(work, any_url):
    """Told before anything is replayed; a report that is there is left alone by a replay that does not begin."""
    done = cli("replay", "--generate", "chat", "--requests", "2", "--block-bytes", "4KiB", "--url", any_url, "--report", work / "no" / "x.html", text=True)
    assert done.returncode == 3 and "no/x.html" in done.stderr and done.stdout == "", (done.stdout, done.stderr)
    (work / "old.html").write_text("old")
    done = cli("replay", "--generate", "chat", "--requests", "2", "--block-bytes", "4KiB", "--url", "tcp:127.0.0.1:9", "--timeout", "300ms",
               "--report", work / "old.html", text=True)
    assert done.returncode == 3 and (work / "old.html").read_text() == "old"


@pytest.mark.slow
def test_several_clients(work, any_url):
    """Requests run beside each other, so hits are not exact; bytes are."""
    trace = kvt.generate(9, 300)
    kvt.write(trace, work / "trace.kvt")
    report = replay(work / "trace.kvt", any_url, "--clients", "4", block=4 * KIB)
    result = simulate.infinite(trace)
    assert (report["wrong_bytes"], report["requests"], report["blocks"]) == (0, 300, result.references)
    assert 0.5 * result.prefix_hits < report["usable_prefix_hits"] <= result.prefix_hits


@pytest.mark.slow
@pytest.mark.parametrize("name, requests", [("mooncake_conversation", 600), ("tau2_b64", 500)])
def test_part_of_a_real_trace(work, any_url, trace_file, name, requests):
    path = trace_file(f"{name}.kvt.xz")
    trace = kvt.read(path).head(requests)
    assert trace.unique() * 8 * KIB < 110 * MIB
    assert_exact(replay(path, any_url, "--requests", str(requests), block=4 * KIB), simulate.infinite(trace))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "file"])
def test_small_store(work, start_daemon, kind):
    """A store of a quarter of the blocks: it finishes, stays within its space, moves little twice, and keeps what LRU would."""
    block = 32 * KIB
    trace = kvt.generate(11, 4000, live_sessions=240)
    unique = trace.unique()
    device = unique // 4 * block
    assert device > 120 * MIB, "too small to say anything about segments"
    kvt.write(trace, work / "trace.kvt")
    image = work / "image"
    format_image(image, device // 4096 * 4096)
    size = image.stat().st_size
    url = f"file:{image}?dram=16MiB" if kind == "file" else start_daemon(work, [image], dram="16MiB").tcp
    report = replay(work / "trace.kvt", url, block=block)
    expected = simulate.lru(trace, unique // 4, "R")
    assert (report["requests"], report["blocks"], report["wrong_bytes"]) == (expected.requests, expected.references, 0)
    assert report["write_amplification"] <= 1.18
    assert image.stat().st_size == size
    assert report["misses"].get("evicted", 0) > 0
    # Sixteen segments are coarse: the fine figure is asked of whole traces in test_traces.py.
    assert 0.80 * expected.prefix_hits <= report["usable_prefix_hits"] <= simulate.infinite(trace).prefix_hits


def test_report_page(work, any_url):
    """--report makes one self-contained page: no script, style or picture from elsewhere."""
    kvt.write(kvt.generate(12, 100), work / "trace.kvt")
    report = replay(work / "trace.kvt", any_url, "--report", work / "report.html", block=4 * KIB)
    page = (work / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "<svg" in page
    for outside in ("http://", "https://", "src=\"/", "@import", "<link"):
        assert outside not in page.replace("http://www.w3.org/", ""), outside
    assert f"{report['usable_prefix_hits']:,}" in page or str(report["usable_prefix_hits"]) in page


def test_unreadable_traces(work, any_url):
    """Each is an error that names the file and what is wrong with it; exit code 1 or 2, nothing on standard output."""
    cases = {"missing.kvt": None, "empty.kvt": b"", "garbage.kvt": b"\0\1\2 not a trace\n", "short.kvt": b"1\t2\t3\n",
             "future.kvt": b"0\t1\t1\t10\t10\t5\t1\n", "broken.kvt.xz": b"\xfd7zXZ\0 but nothing behind it",
             "bad.jsonl": b'{"timestamp": 1, "hash_ids": "no"}\n'}
    for name, content in cases.items():
        if content is not None:
            (work / name).write_bytes(content)
        done = cli("replay", work / name, "--url", any_url, "--json", text=True)
        assert done.returncode != 0 and name in done.stderr, (name, done.returncode, done.stderr)
        assert not done.stdout.strip() or json.loads(done.stdout).get("error"), (name, done.stdout)
