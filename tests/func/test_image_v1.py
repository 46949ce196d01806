"""Images of every released format stay readable: tests/data/image_v1.xz was written by version 1 and must open for ever.

It is a device of 41 MiB as a kill -9 leaves it: sealed segments and an open one, single blocks, a block of three parts, a replaced, a
deleted one, and a space that was dropped. `python3 tests/func/test_image_v1.py` made it, once; it is not made again.
"""
import lzma
import subprocess
import sys
from pathlib import Path

import harness
import libheadrace as lib

IMAGE = Path(__file__).parent.parent / "data" / "image_v1.xz"
SINGLES, MIB = 24, 1 << 20


def value(key, length, version=1):
    """Compressible, so that the image is small in the repository; every 64 bytes differ."""
    return b"".join(f"{key} {version} {at:08d} ".encode().ljust(64, b".") for at in range(0, length, 64))[:length]


def expected():
    """-> {key: value} of the space "kept"."""
    blocks = {f"single/{i}": value(f"single/{i}", 300000 + i * 4097) for i in range(SINGLES)}
    blocks["empty"] = b""
    blocks["large"] = value("large", 3 * MIB - 5)
    blocks["replaced"] = value("replaced", 70000, version=2)
    return blocks


def write(url):
    with lib.Client(url) as client:
        kept, dropped = client.space("kept"), client.space("dropped")
        for i in range(3):
            assert dropped.put(f"gone/{i}".encode(), value("gone", 9000), ack=lib.STABLE) == "none"
        dropped.drop()
        for key in ("deleted", "replaced"):
            assert kept.put(key.encode(), value(key, 50000), ack=lib.STABLE) == "none"
        assert kept.delete(b"deleted", ack=lib.STABLE) == "none"
        for key, data in expected().items():
            item = {"flags": lib.REPLACE} if key == "replaced" else None
            batch = kept.put_batch([(key.encode(), data)], item=item, ack=lib.STABLE)
            assert batch.items[0].status == lib.OK, key


def verify(client):
    kept, blocks = client.space("kept"), expected()
    for key, data in blocks.items():
        assert kept.get(key.encode(), 4 * MIB) == (data, "none"), key
    assert kept.exists(b"deleted") == (None, "absent")
    assert client.space("dropped").exists(b"gone/1") == (None, "absent")
    assert set(kept.list()) == {key.encode() for key in blocks}


def test_image_v1(work, start_daemon):
    image = work / "image"
    image.write_bytes(lzma.decompress(IMAGE.read_bytes()))
    report = harness.check_json(image)
    assert (report["blocks"], report["damaged"]) == (len(expected()), 0)
    reader = subprocess.run([sys.executable, IMAGE.parent / "read_device.py", image], capture_output=True, text=True, check=True)
    assert sum("single/" in line for line in reader.stdout.splitlines()) == SINGLES
    daemon = start_daemon(work, [image])
    with lib.Client(daemon.tcp) as client:
        verify(client)
        # It is written to as any other store, and read again.
        assert client.space("kept").put(b"new", b"bytes", ack=lib.STABLE) == "none"
    daemon.kill()
    daemon.start()
    with lib.Client(daemon.tcp) as client:
        assert client.space("kept").get(b"new", 100) == (b"bytes", "none")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        harness.format_image(path, 41 * MIB)
        daemon = harness.Daemon(Path(folder), [path]).start()
        write(daemon.tcp)
        daemon.kill()
        IMAGE.write_bytes(lzma.compress(path.read_bytes(), preset=9))
        print(f"{IMAGE}: {IMAGE.stat().st_size} bytes")
