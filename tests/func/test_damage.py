"""Bytes that change on the device: only right bytes or misses come back, the damage is counted, and no more is lost than must be."""
import os
import random
import shutil
import subprocess
from pathlib import Path

import libheadrace as lib
import pytest
from blocks import fill, key_of, look
from device import Device
from harness import KIB, MIB, check_json, format_image

LENGTH = 40 * KIB + 123


@pytest.fixture
def ram_work():
    """Where images are copied a thousand times: memory when there is a tmpfs (which also makes the store go on buffered)."""
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
    path = base / f"headrace-damage-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", ["tcp", pytest.param("file", marks=pytest.mark.slow)])
def test_ten_thousand_changes(work, start_daemon, seed, kind):
    """A device filled until blocks were evicted; 10,000 random bytes changed at once, wherever they are; everything read."""
    image = work / "image"
    format_image(image, 96 * MIB)
    length = 24 * KIB
    keys = [key_of(index) for index in range(5000)]
    with lib.Client(f"file:{image}?dram=16MiB") as client:
        fill(client.space("damage"), keys, length)
        before = look(client.space("damage"), keys, length)
    there = [key for key in keys if before[key] == "none"]
    assert 1500 < len(there) < 4500, "full: blocks were evicted"
    rng = random.Random(seed)
    with open(image, "r+b") as file:
        for _ in range(10_000):
            at = rng.randrange(96 * MIB)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ rng.randint(1, 255)]))
    report = check_json(image)
    assert report["damaged"] > 100
    if kind == "tcp":
        url = start_daemon(work, [image], dram="16MiB").tcp
    else:
        url = f"file:{image}?dram=16MiB"
    with lib.Client(url) as client:
        space = client.space("damage")
        after = look(space, keys, length)  # Compares every byte of what comes back.
        right = sum(after[key] == "none" for key in there)
        # Every footer and many unit headers are hit as well. Where a footer is lost, recovery checks all values and leaves out what is
        # damaged, so most blocks are unknown rather than corrupt; how many of either depends on where the bytes fell.
        assert 1 <= right < len(there), right
        # The store works on: what was lost can be put again.
        lost = [key for key in there if after[key] != "none"][:300]
        fill(space, lost, length)
        assert all(reason == "none" for reason in look(space, lost, length).values())


def copy_sparse(source, target):
    """A thousand copies are quick when only what was written is copied."""
    subprocess.run(["cp", "--sparse=always" if source.parent != target.parent else "--sparse=auto", source, target], check=True)


@pytest.fixture
def crashed_image(work, ram_work, start_daemon):
    """An image as a power cut leaves it: sealed segments and an open one, every block stable. -> (path, keys)"""
    image = work / "image"
    format_image(image, 73 * MIB, segment="8MiB")  # Far from full: what is missing was lost, not evicted.
    daemon = start_daemon(work, [image], dram="16MiB")
    keys = [key_of(index) for index in range(250)]
    with lib.Client(daemon.tcp) as client:
        fill(client.space("single"), keys, LENGTH, batch=16)
        assert all(reason == "none" for reason in look(client.space("single"), keys, LENGTH).values())
    daemon.kill()
    copy_sparse(image, ram_work / "pristine")
    return ram_work / "pristine", keys


@pytest.mark.slow
def test_thousand_single_changes(crashed_image, ram_work):
    """One byte changed, the store opened, everything read, the byte put back; a thousand times, aimed at each kind of byte.

    payload: that block is corrupt, and only that; footer, trailer, header of a sealed segment: nothing is lost; header of an
    open segment: at most what comes behind it in that segment. `check` sees each of them, and so does the store.
    """
    pristine, keys = crashed_image
    device = Device(pristine)
    assert device.of("header", True) and device.of("header", False) and device.of("footer") and device.of("payload", True)
    by_key = {}
    for one in device.of("payload"):
        by_key[one.record.key] = one
    assert set(by_key) == set(keys)
    aims = ([("payload", True)] * 250 + [("payload", False)] * 150 + [("footer", True)] * 150 + [("trailer", True)] * 100 +
            [("header", True)] * 150 + [("header", False)] * 150 + [("padding", True)] * 30 + [("superblock", None)] * 20)
    rng = random.Random(7)
    rng.shuffle(aims)
    assert len(aims) == 1000
    image = ram_work / "image"
    clean = lib.check_image(pristine)
    assert (clean["damaged"], clean["blocks"]) == (0, len(keys))
    for number, (kind, sealed) in enumerate(aims):
        target = rng.choice(device.of(kind, sealed))
        at = rng.randrange(target.start, target.end)
        copy_sparse(pristine, image)
        with open(image, "r+b") as file:
            file.seek(at)
            file.write(bytes([device.data[at] ^ (1 << rng.randrange(8))]))
        told = f"#{number}: byte {at}, {target}"
        # Padding is no one's: neither check nor the store may call it damage of a block.
        expect_damage = kind != "padding"
        if number % 4 == 0:
            assert (lib.check_image(image)["damaged"] > 0) == expect_damage, told
        with lib.Client(f"file:{image}?dram=8MiB") as client:
            found = look(client.space("single"), keys, LENGTH, batch=50)
            lost = {key: reason for key, reason in found.items() if reason != "none"}
            if kind == "payload" and sealed:
                assert lost == {target.record.key: "corrupt"}, (told, lost)
            elif kind == "payload":
                # Recovery compares what no later stable sequence covers, so the block may be gone before it is asked for.
                assert set(lost) == {target.record.key}, (told, lost)
            elif kind == "header" and not sealed:
                allowed = {key for key, one in by_key.items() if one.segment == target.segment and one.unit_off >= target.unit_off}
                assert set(lost) <= allowed, (told, {reason: list(lost.values()).count(reason) for reason in set(lost.values())})
                assert lost, told
            else:
                assert not lost, (told, lost)
            if expect_damage and number % 4 == 0:
                assert damage_counted(client.stat()), told


def damage_counted(stat):
    """True when any counter of damage in STAT is above zero, wherever it is."""
    words = ("corrupt", "crc_failures", "mismatch", "damaged", "bad_", "torn")
    if isinstance(stat, dict):
        return any((any(word in name for word in words) and isinstance(value, (int, float)) and value > 0) or damage_counted(value)
                   for name, value in stat.items())
    return isinstance(stat, list) and any(damage_counted(value) for value in stat)


def test_clean_store_counts_no_damage(work):
    """The counter that the tests above look for is zero on a sound store."""
    with lib.Client(f"file:{work}/image?size=64MiB&dram=16MiB") as client:
        fill(client.space("x"), [key_of(index) for index in range(100)], 10_000)
        look(client.space("x"), [key_of(index) for index in range(100)], 10_000)
        assert not damage_counted(client.stat())
    with lib.Client(f"file:{work}/image?size=64MiB&dram=16MiB") as client:
        look(client.space("x"), [key_of(index) for index in range(100)], 10_000)
        assert not damage_counted(client.stat())


def test_swapped_values(work):
    """Two values of the same length change places, with everything around them right: identity is checked, not only bytes."""
    image = work / "image"
    format_image(image, 41 * MIB, segment="8MiB")
    keys = [key_of(index) for index in range(20)]
    with lib.Client(f"file:{image}?dram=8MiB") as client:
        fill(client.space("swap"), keys, 64 * KIB)
    device = Device(image)
    one, two = device.of("payload")[3], device.of("payload")[11]
    with open(image, "r+b") as file:
        for target, source in ((one, two), (two, one)):
            file.seek(target.start)
            file.write(device.data[source.start:source.end])
    with lib.Client(f"file:{image}?dram=8MiB") as client:
        found = look(client.space("swap"), keys, 64 * KIB)
        assert {key for key, reason in found.items() if reason != "none"} == {one.record.key, two.record.key}


def test_damage_under_a_running_daemon(work, start_daemon):
    """A byte changes on flash while the node runs: the block is corrupt, counted, dropped; a new PUT brings it back."""
    image = work / "image"
    format_image(image, 64 * MIB)
    daemon = start_daemon(work, [image], dram="8MiB")
    keys = [key_of(index) for index in range(600)]
    with lib.Client(daemon.tcp) as client:
        space = client.space("live")
        fill(space, keys, LENGTH)
        target = Device(image).of("payload", True)[5]
        fd = os.open(image, os.O_RDWR)
        os.pwrite(fd, bytes([os.pread(fd, 1, target.start + 777)[0] ^ 1]), target.start + 777)
        os.fsync(fd)
        os.close(fd)
        before = daemon.metric(r'get_misses_total.*reason="corrupt"')
        found = look(space, keys, LENGTH)
        assert {key: reason for key, reason in found.items() if reason != "none"} == {target.record.key: "corrupt"}
        assert daemon.metric(r'get_misses_total.*reason="corrupt"') == before + 1
        assert space.get(target.record.key)[1] in ("corrupt", "absent")
        fill(space, [target.record.key], LENGTH)
        assert look(space, [target.record.key], LENGTH) == {target.record.key: "none"}
