"""Identity, computed from docs/format/identity.md alone, against the page's tables and the C test's vectors."""

import hashlib
import pathlib
import re
import struct

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "format" / "identity.md").read_text()
C_TEST = (ROOT / "tests" / "unit" / "base" / "test_hash.c").read_text()


def space_digest(pairs):
    data = b"\x01"
    for name, value in sorted(pairs):
        data += struct.pack("<I", len(name)) + name + struct.pack("<I", len(value)) + value
    return hashlib.sha256(data).digest()


def block_id(digest, key):
    return hashlib.sha256(b"\x01" + digest + bytes(31) + key).digest()[:16]


def rows(section):
    """The cells of the table behind a line that begins with `section`."""
    lines = PAGE[PAGE.index(section):].splitlines()
    table = [line for line in lines if line.startswith("|")]
    for line in table[2:]:
        if line.startswith("| space digest"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def code(cell):
    return re.findall(r"`([^`]*)`", cell)


def test_space_digests():
    seen = 0
    for pairs_cell, digest_cell in rows("Space digests:"):
        if len(code(digest_cell)[0]) != 64:
            break
        pairs = [(n.encode(), v.encode()) for n, v in re.findall(r"`(\w+)`=`([^`]*)`", pairs_cell)]
        expected = code(digest_cell)[0]
        assert space_digest(pairs).hex() == expected
        assert space_digest(pairs[::-1]).hex() == expected
        assert expected in C_TEST
        seen += 1
    assert seen == 2


def test_block_ids():
    seen = 0
    for digest_cell, key_cell, id_cell in rows("Block ids;"):
        digest_text = code(digest_cell)[0]
        digest = bytes(range(32)) if digest_text == "00..1f" else bytes.fromhex(digest_text)
        key_text = code(key_cell)[0]
        repeat = re.fullmatch(r"\\x([0-9a-f]{2})\*(\d+)", key_text)
        key = bytes([int(repeat[1], 16)]) * int(repeat[2]) if repeat else key_text.encode()
        assert block_id(digest, key).hex() == code(id_cell)[0]
        assert code(id_cell)[0] in C_TEST
        seen += 1
    assert seen == 4
