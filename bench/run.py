#!/usr/bin/env python3
"""bench/run.py: Headrace over TCP beside Redis (from DRAM) and beside fio (from flash), in one run on one machine.

    BENCH_SECONDS=5     of each measurement
    BENCH_DIR=PATH      where the store's and fio's files are made (default: build/bench); put it on the device to be measured
    BENCH_DEPTH=16      requests under way: Headrace's depth, Redis's connections, fio's queue depth

Both sides do the same work: the same value sizes, the same number of requests under way, loopback TCP, one client program.
Redis runs as Debian ships it, without snapshots. A ratio above 1 means that Headrace is ahead. Everything made is removed.
"""

import csv
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / (os.environ.get("BUILD") or "build")
SECONDS = int(os.environ.get("BENCH_SECONDS") or 5)
DEPTH = int(os.environ.get("BENCH_DEPTH") or 16)
SIZES = {"64KiB": 64 << 10, "1MiB": 1 << 20}
DRAM_BYTES = 1 << 30
STORE_BYTES = 8 << 30


class BenchError(Exception):
    pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(argv, seconds_max=300):
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, timeout=seconds_max,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, argv))}: exit status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


class Process:
    """A server that is stopped at the end, whatever happens."""

    def __init__(self, argv, log_path):
        self.log_path = log_path
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT)

    def wait_until(self, ready, seconds_max):
        end = time.monotonic() + seconds_max
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"not ready: {self.log_path.read_text()[-500:]}")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def http_ok(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def tcp_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def headraced(folder):
    tcp, http = free_port(), free_port()
    image = folder / "headrace.img"
    run([BUILD / "headrace", "format", image, "--size", STORE_BYTES, "--force"])
    process = Process([BUILD / "headraced", "--device", image, "--dram", DRAM_BYTES, "--listen", f"tcp:127.0.0.1:{tcp}",
                       "--http", f"127.0.0.1:{http}"], folder / "headraced.log")
    process.wait_until(lambda: http_ok(f"http://127.0.0.1:{http}/healthz"), 120)
    return process, f"tcp:127.0.0.1:{tcp}"


def headrace_rate(url, op, size, tier):
    text = run([BUILD / "headrace", "bench", "--url", url, "--op", op, "--size", size, "--depth", DEPTH,
                "--seconds", SECONDS, "--tier", tier, "--json"])
    result = json.loads(text)
    if result["errors"] != 0:
        raise BenchError(f"headrace bench --op {op} --size {size} --tier {tier}: {result['errors']} errors")
    return {"bytes_per_second": result["bytes_per_second"], "p50_us": result["latency_us"]["p50"],
            "p99_us": result["latency_us"]["p99"]}


def redis_rates(port, size_bytes):
    """SET and GET of a keyspace of 256 MiB. SETs go first and cover it, so that GETs find what they ask for."""
    keys = (256 << 20) // size_bytes
    rates = {}
    for op, name in (("set", "put"), ("get", "get")):
        requests = keys * 10
        rate = None
        # The count that takes about SECONDS, from a short run first.
        for _ in range(2):
            text = run(["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-t", op, "-d", size_bytes, "-c", DEPTH, "-r", keys,
                        "-n", requests, "--csv"])
            row = list(csv.DictReader(io.StringIO(text)))[-1]
            rate = float(row["rps"])
            requests = max(keys * 10, int(rate * SECONDS))
        rates[name] = {"bytes_per_second": rate * size_bytes, "p50_us": float(row["p50_latency_ms"]) * 1000,
                       "p99_us": float(row["p99_latency_ms"]) * 1000}
    return rates


def fio_rate(path, op, size_bytes):
    """Random reads or sequential writes of a file as large as the store's working set."""
    argv = ["fio", "--name=peer", f"--filename={path}", "--size=2g", f"--rw={'randread' if op == 'get' else 'write'}",
            f"--bs={size_bytes}", f"--iodepth={DEPTH}", "--time_based", f"--runtime={SECONDS}",
            "--output-format=json", "--end_fsync=1" if op == "put" else "--invalidate=1"]
    last = None
    for direct, engine in (("1", "io_uring"), ("1", "psync"), ("0", "psync")):
        try:
            text = run([*argv, f"--direct={direct}", f"--ioengine={engine}"])
            break
        except BenchError as error:
            last = error
    else:
        raise last
    job = json.loads(text[text.index("{"):])["jobs"][0]["read" if op == "get" else "write"]
    percentiles = job["clat_ns"].get("percentile", {})
    return {"bytes_per_second": job["bw_bytes"], "p50_us": percentiles.get("50.000000", 0) / 1000,
            "p99_us": percentiles.get("99.000000", 0) / 1000, "direct": direct == "1"}


def machine(folder):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), platform.machine())
    source = run(["df", "--output=source,fstype", folder]).splitlines()[-1].split()
    return (f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, "
            f"{source[0]} ({source[1]}), {time.strftime('%Y-%m-%d')}")


def show(rows):
    print(f"\n{'':<26}{'Headrace':>12}{'p99':>10}   {'peer':<8}{'':>10}{'p99':>10}{'ratio':>8}")
    for row in rows:
        ours, peer = row["headrace"], row["peer"]
        print(f"{row['name']:<26}{ours['bytes_per_second'] / 1e6:>7.0f} MB/s{ours['p99_us']:>7.0f} us   "
              f"{row['peer_name']:<8}{peer['bytes_per_second'] / 1e6:>6.0f} MB/s{peer['p99_us']:>6.0f} us"
              f"{ours['bytes_per_second'] / peer['bytes_per_second']:>8.2f}")


def measure(folder):
    rows = []
    process, url = headraced(folder)
    with process:
        redis_port = free_port()
        redis = Process(["redis-server", "--port", redis_port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                         "--maxmemory", "2gb", "--dir", folder], folder / "redis.log")
        with redis:
            redis.wait_until(lambda: tcp_open(redis_port), 20)
            for size, size_bytes in SIZES.items():
                peer = redis_rates(redis_port, size_bytes)
                for op in ("put", "get"):
                    rows.append({"name": f"{op.upper()} {size} dram, tcp", "peer_name": "redis", "peer": peer[op],
                                 "headrace": headrace_rate(url, op, size, "dram")})
                    print(f"measured {rows[-1]['name']}", file=sys.stderr, flush=True)
        for size, size_bytes in SIZES.items():
            for op in ("put", "get"):
                rows.append({"name": f"{op.upper()} {size} flash, tcp", "peer_name": "fio",
                             "headrace": headrace_rate(url, op, size, "flash"),
                             "peer": fio_rate(folder / "fio.img", op, size_bytes)})
                print(f"measured {rows[-1]['name']}", file=sys.stderr, flush=True)
    return rows


def main():
    base = Path(os.environ.get("BENCH_DIR") or BUILD / "bench")
    base.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(base).free < STORE_BYTES + (4 << 30):
        print(f"bench: {base} needs {(STORE_BYTES + (4 << 30)) >> 30} GiB free; BENCH_DIR names another folder", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="run.", dir=base))
    try:
        about = machine(folder)
        print(f"{about}; depth {DEPTH}, {SECONDS} s each", flush=True)
        rows = measure(folder)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows)
    result = BUILD / "bench-result.json"
    result.write_text(json.dumps({"machine": about, "depth": DEPTH, "seconds": SECONDS, "rows": rows}, indent=1) + "\n")
    behind = [row["name"] for row in rows if row["peer_name"] == "redis" and
              row["headrace"]["bytes_per_second"] <= row["peer"]["bytes_per_second"]]
    print(f"\nwritten to {os.path.relpath(result, ROOT)}")
    for name in behind:
        print(f"behind Redis: {name}")
    # Programs of bench/*.c measure one thing each and say what.
    for program in sorted(BUILD.glob("bench_*")):
        if program.is_file() and os.access(program, os.X_OK):
            print(f"\n{program.name}", flush=True)
            if subprocess.run([program], stdin=subprocess.DEVNULL, check=False).returncode != 0:
                behind.append(program.name)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
