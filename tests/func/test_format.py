"""What the store writes, against the reader that was written from docs/format alone."""
import json
import random
import subprocess
import sys

import device
import libheadrace as lib
import pytest
import read_device
import wire
from blocks import fill, key_of, value_of
from harness import KIB, MIB, ROOT, check_json, format_image


def live(path):
    """{(space digest, key): value} as the page reads the device, every value checked against its CRCs."""
    found = {}
    for one in read_device.slices(path):
        for pieces in one.live():
            first = pieces[0][1]
            _, digest, _ = one.spaces[first.space]
            assert wire.block_id(digest, first.key) == first.id
            assert all(one.value_is_right(*piece) for piece in pieces)
            value = b"".join(one.value(segment, record) for segment, record in pieces)
            assert len(value) == first.block_bytes
            found[digest, first.key] = value
    return found


def test_plain_crc():
    """The reader's own CRC is the one that device.py puts in its place."""
    assert device.read_device.crc32c is wire.crc32c
    done = subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import read_device; "
                           "print(read_device.crc32c(bytes(range(256)) * 5))", ROOT / "tests" / "data"], capture_output=True, check=True)
    assert int(done.stdout) == wire.crc32c(bytes(range(256)) * 5)


@pytest.mark.parametrize("shards", [1, 2])
def test_reader_sees_what_was_put(work, start_daemon, shards):
    """Puts of all sizes, replaces, deletes, a dropped space, parts: after kill -9 and after a stop the page's reader finds just what is there."""
    image = work / "image"
    format_image(image, 160 * MIB, segment="8MiB", shards=shards)
    daemon = start_daemon(work, [image])
    rng, expected = random.Random(9), {}
    with lib.Client(daemon.tcp) as client:
        spaces = [client.space(name) for name in ("one", "two", "dropped")]
        for turn in range(400):
            space, key = rng.choice(spaces), f"k{rng.randrange(120)}".encode()
            if rng.random() < 0.15:
                space.delete(key, ack=lib.STABLE)
                expected.pop((space.digest(), key), None)
                continue
            value = value_of(key + bytes([turn % 256]), rng.choice((0, 1, 100, 4096, 5000, 65536, 70_000, 300_000) + ((3 * MIB,) if turn % 40 == 0 else ())))
            batch = space.put_batch([(key, value)], item={"flags": lib.REPLACE}, ack=lib.STABLE)
            assert batch.items[0].status == lib.OK, lib.REASONS[batch.items[0].reason]
            expected[space.digest(), key] = value
        spaces[2].drop()
        expected = {name: value for name, value in expected.items() if name[0] != spaces[2].digest()}
    assert len(expected) > 100
    daemon.kill()
    assert live(image) == expected
    daemon.start()
    daemon.stop()
    assert live(image) == expected
    report = check_json(image)
    assert (report["blocks"], report["bytes"], report["damaged"]) == (len(expected), sum(map(len, expected.values())), 0)


def test_reader_after_reclaim(work):
    """A device that was filled several times over: the reader and the store agree on what is there."""
    image = work / "image"
    format_image(image, 64 * MIB, segment="8MiB")
    keys = [key_of(index) for index in range(4000)]
    with lib.Client(f"file:{image}?dram=16MiB") as client:
        space = client.space("reclaim")
        fill(space, keys, 48 * KIB)
        listed, digest = set(space.list(page=1000)), space.digest()
    found = live(image)
    assert {key for _, key in found} == listed and len(listed) > 500
    assert all(value == value_of(key, 48 * KIB) for (_, key), value in found.items())
    assert {name[0] for name in found} == {digest}
    assert check_json(image)["blocks"] == len(listed)


def test_reader_as_a_program(work):
    image = work / "image"
    format_image(image, 41 * MIB, segment="8MiB")
    with lib.Client(f"file:{image}?dram=8MiB") as client:
        fill(client.space("program"), [b"k"], 1000)
    done = subprocess.run([sys.executable, ROOT / "tests" / "data" / "read_device.py", image], capture_output=True, check=True)
    report = json.loads(done.stdout)
    assert [(block["key"], block["bytes"], block["right"]) for block in report["blocks"]] == [("k", 1000, True)]
    assert report["spaces"][0]["digest"] == wire.space_digest({b"name": b"program"}).hex()


def test_fresh_image(work):
    """What format alone writes: both superblocks equal but for where they are, no record, every segment free."""
    format_image(work / "image", 96 * MIB, segment="8MiB", shards=2)
    for one in read_device.slices(work / "image"):
        assert set(one.state.values()) == {"free"} and one.spaces == {}
        assert one.super["segments_count"] == (one.super["slice_bytes"] - MIB) // (8 * MIB)
        assert one.super["prepared"] == one.super["segments_count"]
        assert (one.super["align"], one.super["chunk_bytes"], one.super["part_bytes"]) == (4096, 65536, MIB)
    assert len({one.uuid for one in read_device.slices(work / "image")}) == 2
