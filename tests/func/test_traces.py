"""Whole production traces through the real path, every byte checked (make check-traces; takes minutes and some GiB of disk)."""
import re

import kvt
import pytest
import simulate
from harness import GIB, KIB, MIB, cli_json, format_image

pytestmark = pytest.mark.traces
LONG_S = 3600


def replay(path, url, block, *options):
    return cli_json("replay", path, "--url", url, "--block-bytes", str(block), "--clients", "1", "--json", *options, timeout=LONG_S)


def published(path, policy, order, percent):
    """Usable-prefix hits of a row of expected.tsv."""
    for line in path.read_text().splitlines():
        cells = line.split("\t")
        if cells[0][:1] != "#" and cells[1] == policy and cells[2] == order and abs(float(cells[4]) - percent / 100) < 1e-3:
            return int(cells[5])
    raise LookupError((policy, order, percent))


@pytest.mark.parametrize("name, block, size", [("mooncake_conversation", 64 * KIB, 14 * GIB), ("tau2_b16", 16 * KIB, 1200 * MIB)])
@pytest.mark.parametrize("kind", ["tcp", "unix", "file"])
def test_large_store(work, trace_file, start_daemon, name, block, size, kind):
    """A store that is large enough hits exactly what an infinite cache does."""
    path = trace_file(f"{name}.kvt.xz")
    if kind != "tcp" and name == "tau2_b16":
        pytest.skip("tau2_b16 is asked for over TCP")
    expected = simulate.infinite(kvt.read(path))
    said = re.search(r"#infinite prefix_hits (\d+)", trace_file(f"{name}.expected.tsv").read_text())
    assert expected.prefix_hits == int(said.group(1))
    if kind == "file":
        url = f"file:{work}/image?size={size // MIB}MiB&dram=1GiB"
    else:
        format_image(work / "image", size)
        url = start_daemon(work, [work / "image"], dram="1GiB").url(kind)
    report = replay(path, url, block)
    assert (report["requests"], report["blocks"], report["usable_prefix_hits"], report["wrong_bytes"]) == (
        expected.requests, expected.references, expected.prefix_hits, 0)


@pytest.mark.parametrize("name, block, share", [("mooncake_conversation", 64 * KIB, 0.99), ("tau2_b16", 16 * KIB, 0.96)])
def test_quarter_store(work, trace_file, start_daemon, name, block, share):
    """A device of floor(25 % of the unique blocks) x block bytes, metadata included."""
    path = trace_file(f"{name}.kvt.xz")
    device = kvt.read(path).unique() // 4 * block
    format_image(work / "image", device)
    daemon = start_daemon(work, [work / "image"], dram="64MiB")
    report = replay(path, daemon.tcp, block)
    expected = trace_file(f"{name}.expected.tsv")
    least, best = published(expected, "LRU", "R", 25), published(expected, "OPT", "-", 25)
    hits, amplification = report["usable_prefix_hits"], report["write_amplification"]
    print(f"{name} at 25 %: {hits} hits, {hits / least:.4f} of LRU's {least}, {hits / best:.4f} of OPT's {best}; "
          f"write amplification {amplification:.3f}")
    assert report["wrong_bytes"] == 0
    assert (work / "image").stat().st_size <= device
    assert amplification <= 1.18
    assert hits >= share * least
