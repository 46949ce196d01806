"""The simulators of tests/trace_sim against figures that others computed, and against themselves."""
import re

import kvt
import pytest
import simulate
from harness import BUILD, cli_json, cli_ok


def expected_rows(path):
    """(order, capacity, prefix hits, block hits) of the LRU rows, and the two headers."""
    rows, headers = [], {}
    for line in path.read_text().splitlines():
        if line.startswith(("#trace ", "#infinite ")):
            headers[line.split()[0][1:]] = line
        elif not line.startswith("#") and line.split("\t")[1] == "LRU":
            cells = line.split("\t")
            rows.append((cells[2], int(cells[3]), int(cells[5]), int(cells[6])))
    return rows, headers


@pytest.mark.parametrize("name", ["mooncake_conversation", "tau2_b64", "tau2_b16",
                                  pytest.param("cc_dev", marks=pytest.mark.traces)])
def test_published_figures(trace_file, name):
    """Each LRU row of NAME.expected.tsv and its infinite cache come out to the exact integer."""
    path = trace_file(f"{name}.kvt.xz")
    rows, headers = expected_rows(trace_file(f"{name}.expected.tsv"))
    assert rows and set(headers) == {"trace", "infinite"}
    trace = kvt.read(path)
    result = simulate.infinite(trace)
    said = re.search(r"requests (\d+) refs (\d+) unique (\d+)", headers["trace"])
    assert (result.requests, result.references, result.unique) == tuple(map(int, said.groups()))
    assert result.prefix_hits == int(re.search(r"prefix_hits (\d+)", headers["infinite"]).group(1))
    if name in ("tau2_b16", "cc_dev"):  # The slow ones: two capacities are enough to tell a wrong simulator.
        rows = [row for row in rows if row[1] in (rows[0][1], rows[-1][1])]
    for order, capacity, prefix_hits, block_hits in rows:
        result = simulate.lru(trace, capacity, order)
        assert (result.prefix_hits, result.block_hits) == (prefix_hits, block_hits), (order, capacity)


def test_by_hand():
    """Three requests, counted on paper: A-B-C, then A-B-D, then A-B-C again."""
    trace = kvt.Trace({}, [(0, 1, 1, 0, 0, 0, 3), (1, 2, 1, 0, 0, 2, 1), (2, 1, 1, 0, 0, 3, 0)])
    assert list(trace.paths()) == [[1, 2, 3], [1, 2, 4], [1, 2, 3]]
    assert simulate.infinite(trace)[:4] == (3, 9, 4, 5)
    assert simulate.lru(trace)[:4] == (3, 9, 4, 5)
    # Three blocks of room, tail before head. C B A; D evicts C, B A; C evicts D.
    assert simulate.lru(trace, 3, "R") == (3, 9, 4, 4, 4)
    # Head before tail: A B C; A B D (D evicts C); A B C (C evicts D).
    assert simulate.lru(trace, 3, "F") == (3, 9, 4, 4, 4)
    # Two blocks of room: the order decides. R ends with B A, so the second request finds both; F ends with B C and finds none.
    assert simulate.lru(trace, 2, "R").prefix_hits == 4
    assert simulate.lru(trace, 2, "F").prefix_hits == 0


@pytest.mark.parametrize("seed", range(1, 6))
def test_generated(tmp_path, seed):
    """A seed gives one trace, which survives a file, and on which a large LRU is an infinite cache."""
    trace = kvt.generate(seed, 300)
    assert trace.rows == kvt.generate(seed, 300).rows != kvt.generate(seed + 100, 300).rows
    for name in ("trace.kvt", "trace.kvt.xz"):
        kvt.write(trace, tmp_path / name)
        assert kvt.read(tmp_path / name).rows == trace.rows
    result = simulate.infinite(trace)
    assert result == simulate.lru(trace, result.unique) == simulate.lru(trace)
    assert 0.2 < result.prefix_hits / result.references < 0.99
    tight = simulate.lru(trace, result.unique // 4)
    assert 0 < tight.prefix_hits < result.prefix_hits


@pytest.mark.parametrize("kind", ["chat", "agent"])
def test_generated_by_headrace(tmp_path, kind):
    """What `headrace replay --generate` replays, and what it says other caches make of it, against this reader and these simulators."""
    if not (BUILD / "headrace").exists():
        pytest.skip("headrace is not built")
    options = ["--generate", kind, "--seed", "5", "--requests", "400", "--block-bytes", "4KiB"]
    cli_ok("replay", *options, "--write-trace", tmp_path / "trace.kvt")
    trace = kvt.read(tmp_path / "trace.kvt")
    capacity = trace.unique() // 4
    said = cli_json("replay", *options, "--simulate", "--compare-size", str(capacity * 4096))
    everything, lru = simulate.infinite(trace), simulate.lru(trace, capacity, "R")
    assert (said["requests"], said["blocks"], said["unique_blocks"]) == everything[:3]
    assert (said["infinite"], said["lru"]) == (everything.prefix_hits, lru.prefix_hits)
    # A whole one has the statistics of the trace that it is made after.
    whole = cli_json("replay", "--generate", kind, "--simulate")
    assert whole["infinite"] / whole["blocks"] == pytest.approx(0.366 if kind == "chat" else 0.962, abs=0.035)
