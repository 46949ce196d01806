"""kill -9 in the middle of the work: nothing acknowledged as stable is lost, and no byte is wrong afterwards."""
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import kvt
import libheadrace as lib
import pytest
from blocks import assert_all_there, key_of, value_of
from harness import KIB, MIB, WATCHDOG_S, environment, format_image, program, wait_for

ROUNDS = 10
LENGTH = 48 * KIB + 100


class Writer(threading.Thread):
    """PUTs with ack stable, one batch after the other, and remembers the keys that were acknowledged; goes on through restarts.

    It rests when `limit` keys were acknowledged, so that the store stays large enough.
    """

    def __init__(self, url):
        super().__init__(daemon=True)
        self.client = lib.Client(url)
        self.space = self.client.space("crash")
        self.acknowledged, self.failure, self.limit = [], None, 0
        self.end = threading.Event()

    def run(self):
        try:
            index = 0
            while not self.end.is_set():
                if len(self.acknowledged) >= self.limit:
                    self.end.wait(0.005)
                    continue
                pairs = []
                for _ in range(8):
                    key = key_of(index)
                    pairs.append((key, value_of(key, LENGTH)))
                    index += 1
                batch = self.space.put_batch(pairs, ack=lib.STABLE, deadline_us=500_000)
                done = [key for (key, _), item in zip(pairs, batch.items) if item.status == lib.OK]
                self.acknowledged += done
                if not done:
                    self.end.wait(0.02)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.failure = error


@pytest.mark.slow
def test_kill_daemon(work, start_daemon):
    """A replay and a writer, both stable, over one store; kill -9, restart, continue; ten times in a row."""
    rng = random.Random(3)
    image = work / "image"
    format_image(image, 1200 * MIB)
    daemon = start_daemon(work, [image])
    writer = Writer(daemon.tcp)
    writer.start()
    ready = []
    for attempt in range(ROUNDS):
        trace = work / f"trace{attempt}.kvt"
        kvt.write(kvt.generate(100 + attempt, 120), trace)
        command = [program("headrace"), "replay", trace, "--url", daemon.tcp, "--block-bytes", "16KiB", "--ack", "stable", "--json"]
        replay = subprocess.Popen([*command, "--acked", work / f"acked{attempt}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=environment())
        before, some = len(writer.acknowledged), rng.randint(20, 400)
        writer.limit = before + 800
        wait_for("stable PUTs are acknowledged", lambda: len(writer.acknowledged) >= before + some or writer.failure, step=0.001)
        daemon.kill()
        daemon.start()
        ready.append(daemon.ready_s)
        output, errors = replay.communicate(timeout=WATCHDOG_S)
        assert replay.returncode == 0, errors.decode()
        assert json.loads(output)["wrong_bytes"] == 0
        # What the replay was told is stable, before the kill and after it, is there.
        assert (work / f"acked{attempt}").stat().st_size > 0
        verified = subprocess.run([*command, "--verify", work / f"acked{attempt}"], capture_output=True, env=environment(),
                                  timeout=WATCHDOG_S, check=False)
        assert verified.returncode == 0, (verified.stdout, verified.stderr)
        assert writer.failure is None, writer.failure
        with lib.Client(daemon.tcp) as client:
            assert_all_there(client.space("crash"), list(writer.acknowledged), LENGTH)
    writer.end.set()
    writer.join(WATCHDOG_S)
    writer.client.close()
    print(f"{len(writer.acknowledged)} stable blocks through {ROUNDS} kills; ready after {min(ready):.2f} … {max(ready):.2f} s")
    assert len(writer.acknowledged) >= ROUNDS * 20
    assert daemon.metric(r"evicted") == 0, "the store was to be large enough"


def test_acknowledged_replay_is_there(work, start_daemon):
    """A replay that ran to its end with --ack stable; kill -9 at once; the same replay finds every block."""
    image = work / "image"
    format_image(image, 160 * MIB)
    daemon = start_daemon(work, [image])
    trace = kvt.generate(55, 200)
    kvt.write(trace, work / "trace.kvt")
    run = [program("headrace"), "replay", work / "trace.kvt", "--url", daemon.tcp, "--block-bytes", "16KiB", "--ack", "stable", "--json"]
    subprocess.run(run, check=True, capture_output=True, env=environment(), timeout=WATCHDOG_S)
    daemon.kill()
    daemon.start()
    report = json.loads(subprocess.run(run, check=True, capture_output=True, env=environment(), timeout=WATCHDOG_S).stdout)
    assert (report["usable_prefix_hits"], report["wrong_bytes"]) == (trace.references(), 0)


WORKER = """
import os, random, sys
sys.path[:0] = {path!r}
import libheadrace as lib
from blocks import value_of, look
url, name, length = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = lib.Client(url)
space = client.space("crash")
log = os.open(name + ".acknowledged", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
mine, index = [], 0
while not os.path.exists(os.path.join(os.path.dirname(name), "stop")):
    keys = [f"{{os.path.basename(name)}}/{{index + i}}".encode() for i in range(4)]
    index += 4
    batch = space.put_batch([(key, value_of(key, length)) for key in keys], ack=lib.STABLE, deadline_us=2_000_000)
    done = [key for key, item in zip(keys, batch.items) if item.status == lib.OK]
    mine += done
    os.write(log, b"".join(key + b"\\n" for key in done))
    if mine:
        look(space, random.sample(mine, min(4, len(mine))), length)
client.close()
"""


def lock_owner(folder):
    """The process that holds a record lock on a file of the folder: who hosts a file: store."""
    for path in folder.iterdir():
        if not path.is_file():
            continue
        with open(path, "rb") as file:
            probe = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            try:
                kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, probe))
            except OSError:
                continue
            if kind != fcntl.F_UNLCK and pid > 0:
                return pid
    return None


@pytest.mark.slow
def test_kill_host_of_eight(work):
    """Eight processes on one file: URL; the one that hosts is killed, again and again; the others take over and lose nothing."""
    length, folder = 16 * KIB, work / "store"
    folder.mkdir()
    url = f"file:{folder}/image?size=512MiB&dram=32MiB"
    script = WORKER.format(path=[str(Path(__file__).parent)])
    logs = work / "logs"
    logs.mkdir()
    workers = {}
    for number in range(8):
        process = subprocess.Popen([sys.executable, "-c", script, url, str(logs / f"w{number}"), str(length)],
                                   stdout=subprocess.DEVNULL, stderr=open(logs / f"w{number}.err", "wb"), env=os.environ | {
                                       "PYTHONDONTWRITEBYTECODE": "1"})
        workers[process.pid] = process

    def acknowledged():
        return sum(len(path.read_bytes().splitlines()) for path in logs.glob("*.acknowledged"))

    def alive_fail():
        for process in workers.values():
            if process.poll() not in (None, -signal.SIGKILL):
                texts = [path.read_text()[-2000:] for path in logs.glob("*.err")]
                raise AssertionError(f"a worker ended with {process.returncode}: {texts}")
        return True

    try:
        wait_for("the eight write", lambda: alive_fail() and len(list(logs.glob("*.acknowledged"))) == 8 and acknowledged() >= 200)
        hosts = []
        for _ in range(5):
            host = wait_for("someone hosts", lambda: alive_fail() and lock_owner(folder))
            assert host in workers and host not in hosts, (host, hosts)
            hosts.append(host)
            workers[host].kill()
            workers[host].wait()
            before = acknowledged()
            wait_for("the others go on", lambda before=before: alive_fail() and acknowledged() >= before + 100)
        (logs / "stop").touch()
        for pid, process in workers.items():
            if pid not in hosts:
                assert process.wait(WATCHDOG_S) == 0, [path.read_text()[-2000:] for path in logs.glob("*.err")]
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    keys = [line for path in logs.glob("*.acknowledged") for line in path.read_bytes().splitlines()]
    assert len(keys) >= 700
    with lib.Client(url) as client:
        assert_all_there(client.space("crash"), keys, length)
    print(f"{len(keys)} stable blocks through five deaths of the host")


@pytest.mark.parametrize("ack", [lib.RAM, lib.STABLE])
def test_drain_keeps_everything(work, start_daemon, ack):
    """SIGTERM makes everything stable, what was acknowledged as ram included."""
    image = work / "image"
    format_image(image, 160 * MIB)
    daemon = start_daemon(work, [image])
    keys = [key_of(index) for index in range(300)]
    with lib.Client(daemon.tcp) as client:
        client.space("crash").put_until_stored([(key, value_of(key, LENGTH)) for key in keys], ack=ack)
    daemon.stop()
    daemon.start()
    with lib.Client(daemon.unix) as client:
        assert_all_there(client.space("crash"), keys, LENGTH)
