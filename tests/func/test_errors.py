"""What can be wrong with devices, sockets and permissions: each a clear error that names the thing and the value wanted."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import libheadrace as lib
import pytest
from blocks import assert_all_there, fill, key_of, look, value_of
from harness import MIB, WATCHDOG_S, Daemon, cli, cli_ok, environment, format_image, program, wait_for

need_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop devices, another user")


def refused(daemon, *wanted):
    """The daemon does not start, and says why."""
    code, log = daemon.run_to_end()
    assert code not in (0, None) and code > 0, code
    for text in wanted:
        assert text in log, f"{text!r} is not in {log[-2000:]}"
    return log


@pytest.fixture
def image(work):
    format_image(work / "image", 64 * MIB)
    return work / "image"


# -- starting -----------------------------------------------------------------------------------------------------------------

def test_missing_device(work):
    refused(Daemon(work, [work / "nowhere"]), "nowhere")


def test_foreign_device(work):
    """Not formatted, not touched; `headrace format --force` is named as the way through."""
    (work / "foreign").write_bytes(b"somebody's data " * (4 * MIB))
    before = (work / "foreign").read_bytes()
    refused(Daemon(work, [work / "foreign"]), "foreign", "--force")
    assert (work / "foreign").read_bytes() == before
    with pytest.raises(lib.Error) as failure:
        lib.Client(f"file:{work}/foreign?size=64MiB")
    assert failure.value.code == -lib.ERRORS["EFOREIGN"] and "foreign" in failure.value.detail
    assert (work / "foreign").read_bytes() == before


def test_blank_device(work):
    """A file of zeros carries nothing foreign, but is no store either: the message says how to make it one."""
    with open(work / "blank", "wb") as file:
        file.truncate(64 * MIB)
    refused(Daemon(work, [work / "blank"]), "blank", "headrace format")


def test_device_of_wrong_size(work, image):
    """A device that is smaller than it was at format is refused, with both sizes."""
    os.truncate(image, 40 * MIB)
    log = refused(Daemon(work, [image]), "image")
    assert "64 MiB" in log and "40 MiB" in log or "67108864" in log and "41943040" in log, log
    done = cli("check", image, "--json", text=True)
    assert done.returncode != 0


def test_device_that_grew(work, image, start_daemon):
    """What is behind the end of the store is not looked at."""
    os.truncate(image, 100 * MIB)
    daemon = start_daemon(work, [image])
    with lib.Client(daemon.tcp) as client:
        assert client.space("x").put(b"k", b"v") == "none"


@pytest.mark.parametrize("superblocks", ["both", "A", "B"])
def test_superblocks(work, image, start_daemon, superblocks):
    """One bad copy is no loss; two are a clear refusal, by the daemon, by check and by file:."""
    with lib.Client(f"file:{image}") as client:
        fill(client.space("super"), [key_of(0)], 5000)
    with open(image, "r+b") as file:
        for name, offset in (("A", 0), ("B", 512 << 10)):
            if superblocks in (name, "both"):
                file.seek(offset + 200)
                byte = file.read(1)
                file.seek(offset + 200)
                file.write(bytes([byte[0] ^ 0x40]))
    if superblocks != "both":
        daemon = start_daemon(work, [image])
        with lib.Client(daemon.tcp) as client:
            assert_all_there(client.space("super"), [key_of(0)], 5000)
        return
    refused(Daemon(work, [image]), "image", "superblock")
    done = cli("check", image, "--json", text=True)
    assert done.returncode not in (0, 1) and "superblock" in done.stderr
    with pytest.raises(lib.Error) as failure:
        lib.Client(f"file:{image}")
    assert "superblock" in failure.value.detail


def test_newer_format(work, image):
    """A superblock of a later version is refused with that version, not taken for damage."""
    import wire
    with open(image, "r+b") as file:
        for offset in (0, 512 << 10):
            file.seek(offset)
            page = bytearray(file.read(4096))
            page[8:12] = (2).to_bytes(4, "little")
            page[4092:] = wire.crc32c(bytes(page[:4092])).to_bytes(4, "little")
            file.seek(offset)
            file.write(page)
    refused(Daemon(work, [image]), "image", "newer", "2")


def test_port_in_use(work, image):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(Daemon(work, [image], tcp=False, listen=[f"tcp:127.0.0.1:{port}"]), f"127.0.0.1:{port}", "in use")
        daemon = Daemon(work, [image])
        daemon.http_port = port
        refused(daemon, f"127.0.0.1:{port}", "in use")


def test_socket_in_use(work, image, start_daemon):
    """A Unix socket that somebody serves is not taken away; one that a dead daemon left is."""
    daemon = start_daemon(work, [image])
    format_image(work / "other", 64 * MIB)
    (work / "second").mkdir()
    second = Daemon(work / "second", [work / "other"], unix=False, listen=[daemon.unix])
    refused(second, "hr.sock", "in use")
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    cli_ok("put", "k", "--url", daemon.unix, input=b"v")


def test_device_in_use(work, image, start_daemon):
    """A second daemon, a format, a check for writing and a file: URL keep off a device that is open, and name it."""
    start_daemon(work, [image])
    (work / "second").mkdir()
    refused(Daemon(work / "second", [image]), "image", "in use")
    done = cli("format", image, "--size", "64MiB", "--force", text=True)
    assert done.returncode == 5 and "in use" in done.stderr and "image" in done.stderr
    with pytest.raises(lib.Error) as failure:
        lib.Client(f"file:{image}")
    assert failure.value.code == -lib.ERRORS["EINUSE"], failure.value


def test_same_device_twice(work, image):
    refused(Daemon(work, [image, image]), "image")


def test_same_store_twice(work, image):
    """A copy of an image carries the same shard UUIDs: two of one are refused, not mixed up."""
    shutil.copy(image, work / "copy")
    refused(Daemon(work, [image, work / "copy"]), "copy")


@need_root
def test_no_permission(work, image):
    """Another user's device, socket folder, configuration: refused by name with the system's reason."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*nobody, program("headraced"), "--help"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the build folder is not readable by another user")
    os.chmod(work, 0o755)
    os.chmod(image, 0o600)
    log = work / "log"
    log.mkdir()
    os.chown(log, 65534, 65534)
    daemon = Daemon(log, [image], wrap=nobody)
    refused(daemon, "image", "ermission", "65534")
    own = log / "own"
    format_image(own, 64 * MIB)
    os.chown(own, 65534, 65534)
    os.chown(f"{own}.lock", 65534, 65534)
    (work / "closed").mkdir(mode=0o700)
    refused(Daemon(log, [own], wrap=nobody, unix=False, listen=[f"unix:{work}/closed/hr.sock"]), "closed/hr.sock", "ermission")
    config = work / "secret.yaml"
    config.write_text("dram: 1GiB\n")
    config.chmod(0o600)
    done = subprocess.run([*nobody, program("headraced"), "--config", config], capture_output=True, timeout=WATCHDOG_S, check=False,
                          env=environment())
    assert done.returncode != 0 and b"secret.yaml" in done.stderr and b"ermission denied" in done.stderr
    done = subprocess.run([*nobody, program("headrace"), "format", work / "new", "--size", "64MiB"], capture_output=True, check=False)
    assert done.returncode != 0 and b"new" in done.stderr and b"ermission denied" in done.stderr


@need_root
def test_file_url_in_a_closed_folder(work):
    """Whose socket cannot be made is told with the folder that it has, not with the library's way to it."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program("headrace")]
    if subprocess.run([*nobody, "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the build folder is not readable by another user")
    url = f"file:{work}/image?size=64MiB"
    cli_ok("put", "k", "--url", url, input=b"v")
    for path in work.iterdir():
        os.chown(path, 65534, 65534)
    os.chmod(work, 0o755)
    done = subprocess.run([*nobody, "get", "k", "--url", url], capture_output=True, timeout=WATCHDOG_S, check=False, env=environment())
    line = done.stderr.decode()
    assert done.returncode == 3 and f"unix:{work}/image.sock" in line and "ermission denied" in line and "/proc/" not in line, line


@pytest.mark.slow
def test_direct_io_refused(start_daemon, work):
    """Where the file system refuses O_DIRECT, the store says so once and goes on buffered."""
    env = None
    probe = Path("/dev/shm") / f"headrace-probe-{os.getpid()}"
    try:
        fd = os.open(probe, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
        os.close(fd)
        env = {"HEADRACE_DIRECT": "0"}  # Here it takes it: then as if it did not.
    except OSError:
        pass
    finally:
        probe.unlink(missing_ok=True)
    image = Path("/dev/shm") / f"headrace-test-{os.getpid()}"
    try:
        format_image(image, 64 * MIB)
        daemon = start_daemon(work, [image], env=env)
        with lib.Client(daemon.tcp) as client:
            fill(client.space("x"), [key_of(index) for index in range(50)], 50_000)
            assert_all_there(client.space("x"), [key_of(index) for index in range(50)], 50_000)
        daemon.stop()
        said = [line for line in daemon.log().splitlines() if "O_DIRECT" in line]
        assert len(said) == 1 and "buffered" in said[0], said
    finally:
        image.unlink(missing_ok=True)


# -- a device that goes bad under a running daemon ------------------------------------------------------------------------------

@pytest.fixture
def small_disk(work):
    """A file system of 200 MiB in memory."""
    folder = work / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "headrace-test", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.fixture
def two_devices(work, small_disk, start_daemon):
    """A node of two devices with 1,200 blocks; the DRAM tier is small, so that most reads go to flash. -> (daemon, space, keys, bad)"""
    good, bad = work / "good", small_disk / "bad"
    for path in (good, bad):
        format_image(path, 160 * MIB)
    daemon = start_daemon(work, [good, bad], dram="16MiB")
    keys = [key_of(index) for index in range(1200)]
    with lib.Client(daemon.tcp) as client:
        space = client.space("two")
        fill(space, keys, 64_000)
        assert_all_there(space, keys, 64_000)
        yield daemon, space, keys, bad


def break_device(path):
    """As a drive that fell off: what was there cannot be read, and nothing can be written."""
    os.truncate(path, 0)
    with open(path.parent / "filler", "wb") as filler:
        with pytest.raises(OSError):
            while True:
                filler.write(bytes(MIB))
                filler.flush()


def put_until_it_breaks(daemon, space):
    """New blocks, until a write to the bad device fails and the node says so."""
    def broken():
        index = broken.count = getattr(broken, "count", 0) + 1
        space.put_batch([(key_of(index * 50 + one, "more"), bytes(20_000)) for one in range(50)])
        return "device_failed" in daemon.log()

    wait_for("the device is dropped", broken)


@pytest.mark.slow
def test_device_gone(two_devices):
    """One device of two goes away under the node: it goes on, says which, and takes a replacement without a restart."""
    daemon, space, keys, bad = two_devices
    assert daemon.metric("headrace_device_up") == 2
    break_device(bad)
    put_until_it_breaks(daemon, space)
    failed = [line for line in daemon.log().splitlines() if "device_failed" in line]
    assert len(failed) == 1 and "level=error" in failed[0] and f"device={bad}" in failed[0]
    wait_for("the metric", lambda: daemon.metrics()[f'headrace_device_up{{device="{bad}"}}'] == 0)
    assert daemon.metric("headrace_device_up") == 1
    status, text = daemon.get("/healthz")
    assert status in (200, 503) and str(bad) in text, (status, text)
    # The other device's blocks are there, and new blocks find a place: the map without the lost shard has reached the client.
    found = look(space, keys, 64_000)
    kept = [key for key in keys if found[key] == "none"]
    assert 300 < len(kept) < 900
    wait_for("every new block is stored", lambda: all(
        item.status == lib.OK for item in space.put_batch([(key_of(index, "new"), value_of(key_of(index, "new"), 1000))
                                                           for index in range(100)]).items))
    assert_all_there(space, [key_of(index, "new") for index in range(100)], 1000)
    # A replacement: a new store under the same path, and a reload.
    (bad.parent / "filler").unlink()
    bad.unlink()
    format_image(bad, 160 * MIB)
    daemon.process.send_signal(signal.SIGHUP)
    wait_for("the replacement serves", lambda: daemon.metric("headrace_device_up") == 2)
    wait_for("the node is well", lambda: daemon.get("/healthz") == (200, "ready\n"))
    # The new shard has a share of the routes; what the good device holds is still there for who asks all shards.
    got = space.get_batch(kept[:100], 64_000, item={"flags": lib.ALL_SHARDS})
    assert all(item.status == lib.OK and got.value(index) == value_of(kept[index], 64_000) for index, item in enumerate(got.items))

    def refilled():
        some = [key_of(index, "after") for index in range(200)]
        space.put_until_stored([(key, value_of(key, 1000)) for key in some])
        return daemon.metrics_of("headrace_shard_blocks", device=str(bad)) > 20

    wait_for("the replacement takes its share", refilled)


@pytest.mark.slow
def test_one_device_cannot_be_read(two_devices):
    """A device that answers every read with an error: its blocks are misses, counted; the others are right; the node runs. After many
    errors in a row it counts as failed, and its shard's metrics go with it: then the node says so."""
    daemon, space, keys, bad = two_devices
    os.truncate(bad, 2 * MIB)
    found = look(space, keys, 64_000)
    assert 300 < sum(reason == "none" for reason in found.values()) < 1100

    def told():
        dropped = re.search(rf"level=error .*event=device_failed .*device={re.escape(str(bad))}", daemon.log())
        return dropped or any(value > 0 for text, value in daemon.metrics().items()
                              if text.startswith("headrace_flash_read_errors_total") and str(bad) in text)

    wait_for("the errors are counted, or the device is dropped", told)
    assert daemon.running()


@need_root
def test_one_device_returns_eio(work, start_daemon):
    """A loop device whose file loses its middle: reads of what was there fail with EIO; only those blocks are missed."""
    backing = work / "backing"
    format_image(backing, 128 * MIB)
    loop = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, check=False)
    if loop.returncode != 0:
        pytest.skip(f"no loop device: {loop.stderr.decode().strip()}")
    device = loop.stdout.decode().strip()
    try:
        format_image(device, 128 * MIB, force=True)
        daemon = start_daemon(work, [device], dram="16MiB")
        keys = [key_of(index) for index in range(1000)]
        with lib.Client(daemon.tcp) as client:
            space = client.space("eio")
            fill(space, keys, 64_000)
            os.truncate(backing, 40 * MIB)
            subprocess.run(["sh", "-c", f"blockdev --flushbufs {device}"], capture_output=True, check=False)
            found = look(space, keys, 64_000)
            assert daemon.running()
            assert any(reason != "none" for reason in found.values())
            assert daemon.metric(r"read_errors|device_errors|failed") > 0
        daemon.kill()
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)


@pytest.mark.slow
@need_root
def test_bad_sector(work, start_daemon):
    """One sector that cannot be read loses its block and no other, is counted, and the device stays."""
    versions = subprocess.run(["dmsetup", "targets"], capture_output=True, check=False)
    if versions.returncode != 0 or b"error" not in versions.stdout:
        pytest.skip("no device mapper with an error target here; tests/fault does this on the simulated device")
    backing = work / "backing"
    with open(backing, "wb") as file:
        file.truncate(128 * MIB)
    device = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, check=True).stdout.decode().strip()
    name = f"headrace-test-{os.getpid()}"
    sectors, bad = 128 * MIB // 512, (1 * MIB + 3 * MIB) // 512

    def table(with_error):
        if not with_error:
            return f"0 {sectors} linear {device} 0\n"
        return (f"0 {bad} linear {device} 0\n{bad} 8 error\n"
                f"{bad + 8} {sectors - bad - 8} linear {device} {bad + 8}\n")

    def dm(*args, table_text=None):
        subprocess.run(["dmsetup", *args], input=table_text and table_text.encode(), check=True, capture_output=True)

    try:
        dm("create", name, table_text=table(False))
        format_image(f"/dev/mapper/{name}", 128 * MIB, force=True)
        daemon = start_daemon(work, [f"/dev/mapper/{name}"], dram="16MiB")
        keys = [key_of(index) for index in range(1000)]
        with lib.Client(daemon.tcp) as client:
            fill(client.space("sector"), keys, 64_000)
            dm("suspend", name)
            dm("load", name, table_text=table(True))
            dm("resume", name)
            found = look(client.space("sector"), keys, 64_000)
            assert 1 <= sum(reason != "none" for reason in found.values()) <= 1
            assert client.space("sector").put(b"goes on", b"v") == "none"
    finally:
        subprocess.run(["dmsetup", "remove", "--force", name], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", device], check=False)


# -- a full device and unusable values --------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_full_device(work, start_daemon):
    """Four times what fits: every PUT is taken in the end, the oldest go, the newest are there, the device keeps its size."""
    format_image(work / "image", 64 * MIB)
    size = (work / "image").stat().st_size
    daemon = start_daemon(work, [work / "image"], dram="16MiB")
    keys = [key_of(index) for index in range(2000)]
    with lib.Client(daemon.tcp) as client:
        space = client.space("full")
        fill(space, keys, 128 << 10)
        found = look(space, keys, 128 << 10)
        assert all(found[key] == "none" for key in keys[-100:])
        gone = [key for key in keys if found[key] != "none"]
        assert 1400 < len(gone) < 1900
        assert {found[key] for key in gone} <= {"evicted", "absent"}
        assert "evicted" in {found[key] for key in gone}
        usage = space.usage()
        assert usage.blocks == len(keys) - len(gone) and usage.bytes == usage.blocks * (128 << 10)
    assert (work / "image").stat().st_size == size


def test_no_room_for_the_file(work):
    """An image that does not fit the file system is refused before anything is written."""
    small = work / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", small], capture_output=True,
                                           check=False).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = cli("format", small / "image", "--size", "64MiB", text=True)
        assert done.returncode != 0 and "No space left" in done.stderr and "image" in done.stderr, done.stderr
        assert not (small / "image").exists() or (small / "image").stat().st_blocks == 0
        with pytest.raises(lib.Error) as failure:
            lib.Client(f"file:{small}/image?size=64MiB")
        assert "image" in failure.value.detail
    finally:
        subprocess.run(["umount", small], check=True)


def test_key_and_value_limits(connect, any_url):
    """Keys of 0 and 1,025 bytes and a value over 128 MiB are invalid, item by item; the batch around them is served."""
    client = connect(any_url)
    space = client.space("limits")
    large = lib._buffer(b"x")
    batch = lib.Batch(5)
    for index, key in enumerate((b"ok 1", b"", b"k" * 1025, b"large", b"ok 2")):
        batch.key(index, key)
        batch.memory(index, large)
    huge = (lib.Iovec * 1)()
    huge[0].base, huge[0].len = lib.c.addressof(large), lib.BLOCK_BYTES_MAX + 1
    batch.items[3].iov = huge
    space.run(lib.PUT, batch)
    assert [item.status for item in batch.items] == [lib.OK, lib.INVALID, lib.INVALID, lib.INVALID, lib.OK]
    got = space.get_batch([b"ok 1", b"", b"k" * 1025, b"ok 2"], 10)
    assert [item.status for item in got.items] == [lib.OK, lib.INVALID, lib.INVALID, lib.OK]
    with pytest.raises(lib.Error):
        space.put(b"", b"value")


def test_size_of_existing_image(work):
    """An existing image keeps its size; another size= is said in one line, and everything is there."""
    with lib.Client(f"file:{work}/image?size=64MiB") as client:
        fill(client.space("x"), [key_of(0)], 1000)
    done = cli_ok("get", key_of(0).decode(), "--space", "x", "--url", f"file:{work}/image?size=96MiB", text=False)
    assert done.stdout == value_of(key_of(0), 1000)
    assert (work / "image").stat().st_size == 64 * MIB
    assert b"64" in done.stderr and b"96" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("url, wanted", [
    ("file:", "path"),
    ("file:image?size=huge", "huge"),
    ("file:image?sise=1GiB", "size"),
    ("file:image?size=1MiB", "MiB"),
    ("unix:", "path"),
    ("tcp:", "HOST"),
    ("tcp:host:99999", "99999"),
    ("tcp:host:http", "http"),
    ("http://host", "tcp:"),
    ("tcp://host:7450", "HOST:PORT"),
    ("tcp:::1:7450", "brackets"),
    (f"file:{'n' * 250}?size=64MiB", "at most 247"),
    ("", "tcp:HOST:PORT"),
])
def test_unusable_urls(work, monkeypatch, url, wanted):
    """The line names what is wrong in the URL, or what is wanted; nothing is made."""
    monkeypatch.chdir(work)
    with pytest.raises(lib.Error) as failure:
        lib.Client(url)
    assert failure.value.code in (-lib.ERRORS["EURL"], -lib.ERRORS["ESIZE"], -22), failure.value
    assert wanted in failure.value.detail, failure.value.detail


def test_check_json_of_a_used_store(work):
    """What check counts is what was put."""
    with lib.Client(f"file:{work}/image?size=64MiB") as client:
        fill(client.space("x"), [key_of(index) for index in range(100)], 30_000)
    report = json.loads(cli_ok("check", work / "image", "--json").stdout)
    assert (report["blocks"], report["bytes"], report["damaged"]) == (100, 3_000_000, 0)


