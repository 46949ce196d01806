#!/usr/bin/env python3
"""What a cache would get on a trace, to the exact integer. Independent of Headrace: standard library only.

    simulate.py TRACE[.xz] [--capacity BLOCKS | --percent P] [--order R|F] [--requests N]

For each request, in order. LOOKUP: resident blocks count as block hits, the longest leading run of them as usable-prefix hits. TOUCH
each block once, first to last (F) or last to first (R): resident, it becomes the newest; else it goes in, and the oldest goes out
when full.
"""
import argparse
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import kvt  # noqa: E402

Result = namedtuple("Result", "requests references unique prefix_hits block_hits")


def lru(trace, capacity=None, order="R"):
    """An LRU cache of `capacity` blocks; None: it never evicts."""
    if order not in ("F", "R"):
        raise ValueError(f"order is F or R, not {order!r}")
    if capacity is not None and capacity < 1:
        raise ValueError(f"capacity is at least one block, not {capacity}")
    resident = OrderedDict()
    requests = references = prefix_hits = block_hits = 0
    for path in trace.paths():
        requests += 1
        references += len(path)
        there = [block in resident for block in path]
        prefix_hits += there.index(False) if False in there else len(there)
        block_hits += sum(there)
        for block in path if order == "F" else reversed(path):
            if block in resident:
                resident.move_to_end(block)
                continue
            if capacity is not None and len(resident) >= capacity:
                resident.popitem(last=False)
            resident[block] = None
    return Result(requests, references, trace.unique(), prefix_hits, block_hits)


def infinite(trace):
    """A cache that keeps everything, computed without a cache: the depth of each request's hit_node."""
    depth = [0]
    hits = references = 0
    for row in trace.rows:
        hit, fresh = row[5], row[6]
        hits += depth[hit]
        depth.extend(range(depth[hit] + 1, depth[hit] + fresh + 1))
        references += depth[hit] + fresh
    return Result(len(trace.rows), references, len(depth) - 1, hits, hits)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--percent", type=float)
    parser.add_argument("--order", choices="RF", default="R")
    parser.add_argument("--requests", type=int)
    args = parser.parse_args()
    trace = kvt.read(args.trace)
    if args.requests is not None:
        trace = trace.head(args.requests)
    if args.percent is not None:
        args.capacity = int(trace.unique() * args.percent / 100)
    result = infinite(trace) if args.capacity is None else lru(trace, args.capacity, args.order)
    print(" ".join(f"{name}={value}" for name, value in result._asdict().items()))


if __name__ == "__main__":
    main()
