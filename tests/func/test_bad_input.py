"""Peers that break the rules: their connection ends, one line in the log, a counter; nothing else notices, and no memory grows."""
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import libheadrace as lib
import pytest
import wire
from blocks import assert_all_there, key_of, value_of
from harness import KIB, MIB, format_image, status_of, wait_for
from wire import Closed, Connection, Store


def right_frame(**fields):
    return wire.frame(wire.PING, **fields)


def put_frame(key=b"key", value=b"value", **fields):
    return wire.frame(wire.PUT, wire.put_item(bytes(32), key, value, **fields), value, space=1, count=1)


# What is sent on a connection of its own after a right HELLO; every one must end it.
BAD = {
    "random bytes": lambda: random.Random(1).randbytes(4096),
    "zeros": lambda: bytes(4096),
    "wrong magic": lambda: right_frame(magic=b"HRW2"),
    "wrong version": lambda: right_frame(version=9),
    "wrong header CRC": lambda: right_frame(crc=1),
    "wrong items CRC": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)), count=1, items_crc=1),
    "unknown opcode": lambda: wire.frame(99),
    "an opcode of the server's": lambda: wire.frame(wire.GOAWAY),
    "HELLO again": lambda: wire.frame(wire.HELLO, wire.client_hello(), count=1),
    "absurd items length": lambda: wire.frame(wire.EXISTS, items_bytes=1 << 31, count=1),
    "items length not a multiple of 8": lambda: wire.frame(wire.EXISTS, bytes(25), count=1),
    "absurd payload length": lambda: wire.frame(wire.PUT, payload_bytes=1 << 62, count=1),
    "payload over the limit": lambda: wire.frame(wire.PUT, payload_bytes=(64 << 20) + 1, count=1),
    "absurd count": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)), count=1 << 31),
    "count over the limit": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)) * 16385, count=16385),
    "fewer items than counted": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)), space=1, count=2),
    "more items than counted": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)) * 2, space=1, count=1),
    "key too long": lambda: put_frame(key=b"k" * 1025),
    "key longer than its item": lambda: put_frame(key_len=900),
    "key of no byte": lambda: put_frame(key=b""),
    "more CRCs than there are": lambda: put_frame(crc_count=4000),
    "values longer than the payload": lambda: put_frame(stored_bytes=4000),
    "values shorter than the payload": lambda: wire.frame(wire.PUT, wire.put_item(bytes(32), b"k", b"v"), b"value", space=1, count=1),
    "unknown flag of a PUT": lambda: put_frame(flags=0x8000),
    "unknown flag of a GET": lambda: wire.frame(wire.GET, wire.get_item(bytes(16), flags=0x8000), space=1, count=1),
    "part beyond its count": lambda: put_frame(part=3, parts=2),
    "payload where there is none": lambda: wire.frame(wire.EXISTS, wire.id_item(bytes(16)), b"surplus!", space=1, count=1),
    "unknown space operation": lambda: wire.frame(wire.SPACE, struct.pack("<II", 77, 0), count=1),
    "short space operation": lambda: wire.frame(wire.SPACE, struct.pack("<II", 1, 0), count=1),
}
BEFORE_HELLO = ("random bytes", "zeros", "wrong magic", "wrong version", "wrong header CRC", "unknown opcode", "absurd items length")


@pytest.fixture(scope="module")
def witness(node):
    """A well-behaved client whose connection must never notice anything."""
    client = lib.Client(node.tcp)
    space = client.space("witness")
    space.put_until_stored([(key_of(index), value_of(key_of(index), 9000)) for index in range(50)])
    connection = Connection(node.tcp)
    store = Store(connection, b"witness raw")

    def unharmed():
        assert_all_there(space, [key_of(index) for index in range(50)], 9000)
        store.put(b"k", b"v")
        assert store.get(b"k") == (b"v", None)

    yield unharmed
    connection.close()
    client.close()


def ended_bad(node):
    return node.metric("headrace_connections_ended_bad_input_total")


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_bad_frame(node, witness, what, kind):
    counted, lines = ended_bad(node), len(node.log().splitlines())
    with Connection(node.url(kind)) as connection:
        Store(connection, b"bad input")
        try:
            connection.send_bytes(BAD[what]())
        except Closed:
            pass  # Ended before all of it was taken.
        assert connection.ended(), "the connection must end"
    wait_for("the counter", lambda: ended_bad(node) == counted + 1)
    said = node.log().splitlines()[lines:]
    assert len(said) <= 1, said  # None when there were many just before: they are counted, not repeated.
    witness()


@pytest.mark.parametrize("what", BEFORE_HELLO)
def test_bad_first_frame(node, witness, what):
    counted = ended_bad(node)
    with Connection(node.tcp, hello=False) as connection:
        connection.send_bytes(BAD[what]())
        assert connection.ended()
    wait_for("the counter", lambda: ended_bad(node) == counted + 1)
    witness()


def test_request_before_hello(node, witness):
    counted = ended_bad(node)
    with Connection(node.tcp, hello=False) as connection:
        connection.send_bytes(right_frame())
        assert connection.ended()
    wait_for("the counter", lambda: ended_bad(node) == counted + 1)
    witness()


@pytest.mark.parametrize("cut", [1, 4, 63, 64, 100, 64 + 176 + 10])
def test_truncated_frame(node, witness, cut):
    """The peer goes away in the middle of a frame: nothing is stored of it."""
    value = bytes(50_000)
    with Connection(node.tcp) as connection:
        store = Store(connection, b"truncated")
        item = wire.put_item(store.digest, b"cut", value)
        connection.send_bytes(wire.frame(wire.PUT, item, value, space=store.space, count=1)[:cut])
    with Connection(node.tcp) as connection:
        assert Store(connection, b"truncated").get(b"cut") == (None, "absent")
    witness()


@pytest.mark.slow
def test_random_mutations(node, witness):
    """A thousand right frames with a few bytes changed: whatever they do, the node goes on and the witness sees nothing."""
    rng = random.Random(4)
    for _ in range(1000):
        with Connection(node.unix) as connection:
            store = Store(connection, b"mutations")
            value = rng.randbytes(rng.randrange(2000))
            frames = bytearray(wire.frame(wire.PUT, wire.put_item(store.digest, b"k", value), value, space=store.space, count=1) +
                               wire.frame(wire.GET, wire.get_item(store.ident(b"k")), space=store.space, count=1, request=2))
            for _ in range(rng.randint(1, 4)):
                frames[rng.randrange(len(frames))] = rng.randrange(256)
            try:
                connection.send_bytes(bytes(frames))
            except Closed:
                pass
    assert node.running()
    witness()


@pytest.mark.slow
def test_memory_does_not_grow(node, witness):
    """Two thousand bad connections: the daemon's memory, descriptors and connection counters are where they were."""
    def storm(count):
        for index in range(count):
            what = list(BAD.values())[index % len(BAD)]
            with Connection(node.unix) as connection:
                try:
                    connection.send_bytes(what())
                except Closed:
                    pass
                connection.ended()

    def open_files():
        return len(os.listdir(f"/proc/{node.process.pid}/fd"))

    storm(300)
    wait_for("idle", lambda: node.metrics()["headrace_connections"] <= 6)
    rss, files = status_of(node.process.pid, "VmRSS"), open_files()
    storm(2000)
    wait_for("descriptors are closed", lambda: open_files() <= files + 2)
    assert status_of(node.process.pid, "VmRSS") <= rss + 8 * MIB
    witness()


@pytest.mark.slow
def test_stalled_reader(work, start_daemon):
    """Who takes nothing while its bounded output is full is ended after stalled_reader_s; memory stays bounded meanwhile."""
    format_image(work / "image", 128 * MIB)
    daemon = start_daemon(work, [work / "image"], options=["--stalled-reader-s", "2"])
    with Connection(daemon.tcp) as feeder:
        store = Store(feeder, b"stalled")
        value = value_of(b"large", 1 * MIB)
        assert store.put(b"large", value)[0] == wire.OK
        rss = status_of(daemon.process.pid, "VmRSS")
        with Connection(daemon.tcp) as connection:
            stalled = Store(connection, b"stalled")
            connection.sock.settimeout(60)
            asked = 0
            try:
                while asked < 3000:
                    connection.sock.settimeout(5)
                    connection.send(wire.GET, wire.get_item(stalled.ident(b"large")), space=stalled.space, count=1)
                    asked += 1
            except (Closed, TimeoutError, OSError):
                pass  # The node reads nothing more from it, or ended it already.
            grown = status_of(daemon.process.pid, "VmRSS") - rss
            assert grown < 256 * MIB, f"{grown} bytes for {asked} answers that nobody takes"
            wait_for("the stalled reader is ended",
                     lambda: daemon.metric("headrace_connections_ended_stalled_total") == 1, 40)
            # The feeder was served all the time.
            assert store.get(b"large") == (value, None)
        assert len([line for line in daemon.log().splitlines() if "stalled" in line and "conn" in line]) == 1
    wait_for("its output is freed", lambda: status_of(daemon.process.pid, "VmRSS") < rss + 80 * MIB)


CLIENT = """
import sys
sys.path[:0] = {path!r}
import libheadrace as lib
from blocks import value_of
client = lib.Client(sys.argv[1])
space = client.space("killed")
op = sys.argv[2]
value = value_of(b"victim", 4 << 20)
keys = [f"{{op}}{{i}}".encode() for i in range(16)]
if op == "get":
    space.put_until_stored([(key, value) for key in keys])
print("go", flush=True)
while True:
    if op == "put":
        space.put_batch([(key, value) for key in keys], item={{"flags": lib.REPLACE}})
    else:
        space.get_batch(keys, len(value))
"""


@pytest.mark.slow
@pytest.mark.parametrize("op", ["put", "get"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_killed_client(work, start_daemon, op, kind):
    """Clients are killed in the middle of PUTs and GETs of large values; whole blocks stay, nothing leaks, others notice nothing."""
    format_image(work / "image", 512 * MIB)
    daemon = start_daemon(work, [work / "image"], dram="192MiB")
    rng = random.Random(op + kind)
    value = value_of(b"victim", 4 << 20)
    rss = None
    with lib.Client(daemon.tcp) as other:
        space = other.space("other")
        space.put_until_stored([(key_of(index), value_of(key_of(index), 4096)) for index in range(20)])
        for attempt in range(6):
            process = subprocess.Popen([sys.executable, "-c", CLIENT.format(path=[str(Path(__file__).parent)]), daemon.url(kind), op],
                                       stdout=subprocess.PIPE)
            assert process.stdout.readline() == b"go\n"
            moved = daemon.metric(r"headrace_\w*payload\w*bytes") + rng.randint(1, 48) * MIB
            wait_for("bytes move", lambda moved=moved: daemon.metric(r"headrace_\w*payload\w*bytes") >= moved)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            assert_all_there(space, [key_of(index) for index in range(20)], 4096)
            victims = other.space("killed").get_batch([f"{op}{i}".encode() for i in range(16)], len(value))
            for index, item in enumerate(victims.items):
                assert item.status == lib.MISS or victims.value(index) == value
            if attempt == 1:
                rss = status_of(daemon.process.pid, "VmRSS")
        assert status_of(daemon.process.pid, "VmRSS") <= rss + 224 * MIB
        wait_for("nothing is under way", lambda: daemon.metric(
            r"headrace_queue_(requests|puts|put_bytes|output_bytes)\b|headrace_borrows\b|headrace_staging_bytes|headrace_multipart_unfinished") == 0)


def staging_frame(region, size, request=1):
    return wire.frame(wire.STAGING, struct.pack("<IIQ", region, 0, size), count=1, request=request)


def send_with_fd(sock, data, fd):
    socket.send_fds(sock, [data], [fd])


def test_unsealed_staging_is_refused(node, witness):
    """Memory of a client that could shrink under the daemon's hands is not touched: the connection ends."""
    counted = ended_bad(node)
    with Connection(node.unix, features=3) as connection:
        Store(connection, b"staging")
        fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 1 << 20)
        send_with_fd(connection.sock, staging_frame(1, 1 << 20, request=50), fd)
        os.close(fd)
        assert connection.ended()
    wait_for("the counter", lambda: ended_bad(node) == counted + 1)
    witness()


def test_too_many_descriptors(node, witness):
    """Descriptors that belong to no frame are kept up to a bound, then the connection ends, and all are closed."""
    def open_files():
        return len(os.listdir(f"/proc/{node.process.pid}/fd"))

    counted, files = ended_bad(node), open_files()
    fds = [os.memfd_create("surplus") for _ in range(8)]
    with Connection(node.unix, features=3) as connection:
        try:
            for number in range(3):
                socket.send_fds(connection.sock, [wire.frame(wire.PING, request=number + 50)], fds)
        except OSError:
            pass  # Ended before all of it was taken.
        assert connection.ended()
    for fd in fds:
        os.close(fd)
    wait_for("the counter", lambda: ended_bad(node) == counted + 1)
    wait_for("they are closed", lambda: open_files() <= files)
    witness()


def sealed_memfd(data):
    import fcntl
    fd = os.memfd_create("staging", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, 1033, 0x2)  # F_ADD_SEALS, F_SEAL_SHRINK
    return fd


def test_staging(node, witness):
    """PUT through staging memory, and the ways to get it wrong: a range behind its end, a region that is not there."""
    value = value_of(b"staged", 100_000)
    with Connection(node.unix, features=3) as connection:
        store = Store(connection, b"staging")
        fd = sealed_memfd(bytes(4096) + value)
        with pytest.raises(OSError):
            os.ftruncate(fd, 10)  # What a truncating client would do.
        send_with_fd(connection.sock, staging_frame(1, 4096 + len(value), request=50), fd)
        os.close(fd)
        connection.answer(50)
        item = wire.put_item(store.digest, b"staged", value, flags=4, region=1, staging_off=4096)
        answer = connection.call(wire.PUT, item, space=store.space, count=1)
        assert struct.unpack_from("<IBBH", answer.items) == (0, wire.OK, 0, 0)
        assert store.get(b"staged") == (value, None)
    for region, offset in ((1, 4097), (1, (1 << 64) - 4096), (2, 0)):
        counted = ended_bad(node)
        with Connection(node.unix, features=3) as connection:
            store = Store(connection, b"staging")
            fd = sealed_memfd(bytes(4096) + value)
            send_with_fd(connection.sock, staging_frame(1, 4096 + len(value), request=50), fd)
            os.close(fd)
            connection.answer(50)
            item = wire.put_item(store.digest, b"beyond", value, flags=4, region=region, staging_off=offset)
            connection.send(wire.PUT, item, space=store.space, count=1)
            try:
                got = connection.answer()
                assert struct.unpack_from("<IB", got.items)[1] == wire.INVALID
            except Closed:
                wait_for("the counter", lambda counted=counted: ended_bad(node) == counted + 1)
        witness()


@pytest.mark.slow
def test_too_many_requests(node, witness):
    """A connection that keeps asking without reading is bounded, not served for ever, and harms nobody."""
    with Connection(node.unix) as connection:
        store = Store(connection, b"flood")
        store.put(b"x", bytes(60 * KIB))
        connection.sock.settimeout(2)
        try:
            for _ in range(20_000):
                connection.send(wire.GET, wire.get_item(store.ident(b"x")) * 16, space=store.space, count=16)
        except (Closed, OSError):
            pass
        assert status_of(node.process.pid, "VmRSS") < 1024 * MIB
        witness()
