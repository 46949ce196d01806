#!/usr/bin/env python3
"""run.py: how fast Headrace is, beside Redis and fio on the same machine, in the same run, turn by turn (A B B A).

GET and PUT of 64 KiB and 1 MiB over TCP:
  from DRAM, beside redis-server (started here on a free loopback port, without persistence) and a client in C on hiredis
  that does the same: as many requests under way on one connection, values made from the key, every byte compared;
  from flash, beside fio with O_DIRECT on a file on the same device, as many requests of the same size under way.
Headrace's file for the DRAM lines lies in memory (/dev/shm), as Redis keeps nothing on a disk either; --dram-on-disk
puts it on the disk. Prints medians, ratios, the commands and the machine; --json writes all single results.
"""
import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()
KIB, MIB = 1 << 10, 1 << 20


def say(text):
    print(text, flush=True)


def size_text(size):
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // KIB} KiB"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_json(command, commands, key):
    commands.setdefault(key, " ".join(str(word) for word in command))
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(str(word) for word in command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    if done.stderr:
        say(f"  ({done.stderr.strip()})")
    return json.loads(done.stdout)


class Program:
    """A server that runs until the end of a with block; only ever the one started here."""

    def __init__(self, command, ready, log):
        self.command, self.ready, self.log = [str(word) for word in command], ready, log

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
        for _ in range(1200):
            if self.process.poll() is not None or self.ready():
                break
            time.sleep(0.05)
        if self.process.poll() is not None:
            sys.exit(f"bench: {' '.join(self.command)} ended:\n{Path(self.log).read_text(errors='replace')[-2000:]}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
        return True
    except OSError:
        return False


def headraced(work, name, image, size, dram):
    """A formatted image and its daemon; gives its URL."""
    subprocess.run([BUILD / "headrace", "format", image, "--size", str(size), "--quiet"], check=True)
    port = free_port()
    url = f"tcp:127.0.0.1:{port}"
    command = [BUILD / "headraced", "--device", image, "--dram", str(dram), "--listen", url]

    def ready():
        return subprocess.run([BUILD / "headrace", "stat", "--url", url, "--json"], capture_output=True, check=False).returncode == 0
    return url, Program(command, ready, work / f"{name}.log")


def build_redis_client(folder):
    program = folder / "redis_bench"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "hiredis"], capture_output=True, text=True, check=True).stdout.split()
    # hiredis.h lies below its own folder in some distributions' flags, beside it in others'.
    flags = [flag[:-len("/hiredis")] if flag.endswith("include/hiredis") else flag for flag in flags]
    sources = [ROOT / "bench/redis/redis_bench.c", ROOT / "src/cli/content.c", *[ROOT / f"src/base/{name}.c" for name in
                                                                            ("base", "hash", "metric", "prng")]]
    command = [os.environ.get("CC", "cc"), "-O2", "-g", "-std=gnu17", "-D_GNU_SOURCE", f"-I{ROOT}/src", f"-I{ROOT}/include",
               *map(str, sources), "-o", str(program), *flags, "-lcrypto", "-lpthread", "-lm"]
    subprocess.run(command, check=True)
    return program


def redis(work):
    port = free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", work,
               "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]
    return port, Program(command, lambda: answers(port), work / "redis.log")


def turns(rounds):
    """A B B A, as often as asked: what drifts (temperature, neighbours) touches both alike."""
    return "ABBA" * rounds


def alternate(line, measure_a, measure_b, rounds):
    figures = {"A": [], "B": []}
    for turn in turns(rounds):
        figures[turn].append((measure_a if turn == "A" else measure_b)())
    line["headrace"] = statistics.median(figures["A"])
    line["other"] = statistics.median(figures["B"])
    line["headrace_all"], line["other_all"] = figures["A"], figures["B"]
    say(f"  {line['what']:<24} {line['headrace'] / 1e9:7.2f} GB/s   {line['beside']:<6} {line['other'] / 1e9:7.2f} GB/s   "
        f"{line['headrace'] / line['other']:5.2f} x")
    return line


def headrace_bench(options, url, op, size, tier, working_set, commands, batch=1):
    command = [BUILD / "headrace", "bench", "--url", url, "--op", op, "--size", str(size), "--depth", options.depth, "--seconds",
               options.seconds, "--batch", batch, "--tier", tier, "--working-set", working_set, "--json"]
    report = run_json(command, commands, f"headrace {tier} {op} {size_text(size)}")
    if report["errors"] or report["wrong_bytes"]:
        sys.exit(f"bench: {report['errors']} errors, {report['wrong_bytes']} wrong bytes: {command}")
    return report["bytes_per_second"]


def dram_lines(options, work, lines, commands):
    client = build_redis_client(BUILD / "bench")
    memory = Path("/dev/shm")
    in_memory = memory.is_dir() and not options.dram_on_disk and shutil.disk_usage(memory).free > 4 << 30
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench.", dir=memory if in_memory else work))
    say(f"DRAM over TCP, {options.depth} requests under way, one connection; Headrace's file is {'in memory' if in_memory else 'on the disk'}")
    try:
        url, daemon = headraced(work, "dram", folder / "image", 2 << 30, 1 << 30)
        port, server = redis(work)
        with daemon, server:
            for op in ("get", "put"):
                for size in (64 * KIB, MIB):
                    command = [client, "--port", port, "--op", op, "--size", size, "--depth", options.depth, "--seconds",
                               options.seconds, "--working-set", 256 * MIB]
                    line = {"what": f"{op.upper()} {size_text(size)} from DRAM" if op == "get" else f"PUT {size_text(size)}",
                            "beside": "Redis"}
                    lines.append(alternate(
                        line,
                        lambda op=op, size=size: headrace_bench(options, url, op, size, "dram", 256 * MIB, commands),
                        lambda command=command, op=op, size=size:
                            run_json(command, commands, f"redis {op} {size_text(size)}")["bytes_per_second"],
                        options.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fio(options, path, rw, size, commands):
    command = ["fio", "--name=bench", f"--filename={path}", f"--rw={rw}", f"--bs={size}", f"--iodepth={options.depth}",
               "--ioengine=io_uring", "--direct=1", f"--size={options.flash_bytes}", "--time_based",
               f"--runtime={options.seconds}", "--randrepeat=0", "--norandommap", "--output-format=json"]
    report = run_json(command, commands, f"fio {rw} {size_text(size)}")
    return report["jobs"][0]["read" if "read" in rw else "write"]["bw_bytes"]


def flash_lines(options, work, lines, commands):
    say(f"\nflash over TCP, {options.depth} requests under way; fio with O_DIRECT on the same device")
    dram = 64 * MIB
    url, daemon = headraced(work, "flash", work / "image", options.flash_bytes * 2, dram)
    fio_file = work / "fio"
    subprocess.run(["fio", "--name=fill", f"--filename={fio_file}", "--rw=write", "--bs=4m", "--direct=1", "--ioengine=io_uring",
                    "--iodepth=4", f"--size={options.flash_bytes}", "--output-format=json"], capture_output=True, check=True)
    with daemon:
        for op, rw in (("get", "randread"), ("put", "write")):
            for size in (64 * KIB, MIB):
                line = {"what": f"{op.upper()} {size_text(size)} {'from' if op == 'get' else 'to'} flash", "beside": "fio"}
                lines.append(alternate(
                    line,
                    lambda op=op, size=size: headrace_bench(options, url, op, size, "flash", options.flash_bytes, commands),
                    lambda rw=rw, size=size: fio(options, fio_file, rw, size, commands), options.rounds))


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo", encoding="utf-8") if line.startswith("MemTotal")) / (1 << 20)
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}"


def version_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()[0]
    except (OSError, IndexError):
        return "not here"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="each measurement (default: 2)")
    parser.add_argument("--rounds", type=int, default=1, help="of A B B A each (default: 1)")
    parser.add_argument("--depth", type=int, default=16, help="requests under way (default: 16)")
    parser.add_argument("--flash-mib", type=int, default=1024, help="MiB that the flash lines read from (default: 1024)")
    parser.add_argument("--dir", type=Path, default=BUILD / "bench", help="where files are made, on the device to measure (default: build/bench)")
    parser.add_argument("--dram-on-disk", action="store_true", help="keep the file of the DRAM lines on the disk")
    parser.add_argument("--only", choices=("dram", "flash"), help="only these lines")
    parser.add_argument("--json", type=Path, default=BUILD / "bench" / "results.json", help="all single results (default: build/bench/results.json)")
    options = parser.parse_args()
    options.flash_bytes = options.flash_mib * MIB
    (BUILD / "bench").mkdir(parents=True, exist_ok=True)
    options.dir.mkdir(parents=True, exist_ok=True)
    lines, commands = [], {}
    work = Path(tempfile.mkdtemp(prefix="run.", dir=options.dir))
    say(f"{machine()}\n{version_of([BUILD / 'headrace', 'version'])}; {version_of(['redis-server', '--version'])}; {version_of(['fio', '--version'])}\n")
    try:
        if options.only != "flash":
            dram_lines(options, work, lines, commands)
        if options.only != "dram":
            flash_lines(options, work, lines, commands)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say("\n| what | Headrace, GB/s | beside | GB/s | ratio |\n|---|---|---|---|---|")
    for line in lines:
        say(f"| {line['what']} | {line['headrace'] / 1e9:.2f} | {line['beside']} | {line['other'] / 1e9:.2f} | {line['headrace'] / line['other']:.2f} |")
    say(f"\nMedians of {2 * options.rounds} runs of {options.seconds:g} s each, in turns A B B A. The commands:")
    for command in commands.values():
        say(f"  {command}")
    options.json.write_text(json.dumps({"machine": machine(), "lines": lines, "commands": commands}, indent=1) + "\n")
    say(f"\nEvery single result: {options.json}")


if __name__ == "__main__":
    main()
