#!/usr/bin/env python3
"""Reads a Headrace device: written from docs/format/README.md alone, to check that page. Standard library only; slow on purpose.

    read_device.py PATH [--values]     one JSON object: spaces, segments, and every live block with its space, key, length, birth
"""
import hashlib
import json
import struct
import sys
import time
from collections import namedtuple

PAGE = 4096
TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    TABLE.append(_byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283
Descriptor = namedtuple("Descriptor", "bytes key kind codec id route parent position space generation flags birth expiry_ms put_number "
                                      "block_bytes logical stored part parts value_off cost key_id class_hint horizon crcs")
Unit = namedtuple("Unit", "segment generation sequence stable birth_max off header_bytes bytes descriptors_bytes kind lifetime records")
Trailer = namedtuple("Trailer", "segment generation first last birth_max footer_bytes descriptors_bytes units kind records whole")


def descriptors(data, count, chunk_bytes):
    """Section 4, descriptor table; None when one does not parse."""
    at, found = 0, []
    for _ in range(count):
        if at + 160 > len(data):
            return None
        size, key_bytes, kind, codec = struct.unpack_from("<IHBB", data, at)
        ident, route, parent, position, space, generation, flags = struct.unpack_from("<16sQ16sIIII", data, at + 8)
        (birth, expiry, put_number, block, logical, stored, part, parts, value_off, cost, key_id,
         class_hint, horizon) = struct.unpack_from("<QQQQIIHHIIIB7xQ", data, at + 64)
        crcs = -(-stored // chunk_bytes)
        crcs_at = at + 160 + key_bytes + -key_bytes % 4
        if kind not in (1, 2, 3) or size != (crcs_at - at + 4 * crcs + 7) // 8 * 8 or at + size > len(data):
            return None
        found.append(Descriptor(size, data[at + 160:at + 160 + key_bytes], kind, codec, ident, route, parent, position, space, generation,
                                flags, birth, expiry, put_number, block, logical, stored, part, parts, value_off, cost, key_id, class_hint,
                                horizon, struct.unpack_from(f"<{crcs}I", data, crcs_at)))
        at += size
    return found if at == len(data) else None


class Slice:
    """One shard's slice: `super`, `spaces`, `units` and `trailers` by segment, `state` of each segment, `footer_lost`: walked for that."""

    def __init__(self, data, offset):
        self.data, self.base = data, offset
        copies = [self._superblock(offset + at) for at in (0, 512 << 10)]
        self.super = max((copy for copy in copies if copy), key=lambda copy: copy["sequence"], default=None)
        if self.super is None:
            raise ValueError(f"no valid superblock at {offset}")
        self.uuid, self.segment_bytes = self.super["shard"], self.super["segment_bytes"]
        slots = [self._spaces(offset + at) for at in self.super["space_table_off"]]
        self.spaces = max((slot for slot in slots if slot), key=lambda slot: slot[0], default=(0, {}))[1]
        self.units, self.trailers, self.state, self.footer_lost = {}, {}, {}, set()
        for segment in range(self.super["segments_count"]):
            self._segment(segment)

    def _superblock(self, at):
        page = self.data[at:at + PAGE]
        if page[:8] != b"HRSUPER1" or crc32c(page[:4092]) != struct.unpack_from("<I", page, 4092)[0]:
            return None
        version, _, _, incompat = struct.unpack_from("<IIII", page, 8)
        if version != 1 or incompat:
            raise ValueError(f"made by a newer Headrace (format {version})")
        names = ("device shard shard_idx shards_count slice_off slice_bytes device_bytes segment_bytes segments_count align part_bytes chunk_bytes "
                 "id_scheme checksum_kind meta_bytes weight sequence created_ms prepared unit_bytes_max").split()
        fields = dict(zip(names, struct.unpack_from("<16s16sIIQQQQIIIIHHIQQQII", page, 24)))
        fields["space_table_off"] = struct.unpack_from("<II", page, 152)
        fields["space_table_bytes"], = struct.unpack_from("<I", page, 160)
        return fields if fields["slice_off"] == self.base else None

    def _spaces(self, at):
        head = self.data[at:at + 64]
        version, incompat, uuid, sequence, count = struct.unpack_from("<II16sQI", head, 8)
        rows = self.data[at + 64:at + 64 + 192 * count]
        if head[:8] != b"HRSPACE1" or (version, incompat, uuid) != (1, 0, self.uuid) or 64 + 192 * count > self.super["space_table_bytes"]:
            return None
        if crc32c(head[:60] + rows) != struct.unpack_from("<I", head, 60)[0]:
            return None
        spaces = {}
        for row in range(count):
            number, generation, _, _, digest = struct.unpack_from("<IIII32s", rows, 192 * row)
            spaces[number] = (generation, digest, rows[192 * row + 120:192 * row + 184].rstrip(b"\0").decode())
        return sequence, spaces

    def unit(self, segment, off):
        """The unit header that is valid in this segment at this offset, or None."""
        at = self.base + self.super["meta_bytes"] + segment * self.segment_bytes + off
        head = self.data[at:at + 128]
        version, _, _, incompat, uuid, generation, sequence, stable, birth_max = struct.unpack_from("<IIII16sQQQQ", head, 8)
        said, said_off, header_bytes, size, count, descriptors_bytes, kind, lifetime = struct.unpack_from("<IIIIIIHH", head, 72)
        if head[:8] != b"HRUNIT01" or (version, incompat, uuid, said, said_off) != (1, 0, self.uuid, segment, off):
            return None
        if off + size > self.segment_bytes or 128 + descriptors_bytes > header_bytes or header_bytes > size or (header_bytes | size) % PAGE:
            return None
        body = self.data[at + 128:at + 128 + descriptors_bytes]
        records = descriptors(body, count, self.super["chunk_bytes"])
        if records is None or crc32c(head[:124] + body) != struct.unpack_from("<I", head, 124)[0]:
            return None
        return Unit(segment, generation, sequence, stable, birth_max, off, header_bytes, size, descriptors_bytes, kind, lifetime, records)

    def _trailer(self, segment):
        end = self.base + self.super["meta_bytes"] + (segment + 1) * self.segment_bytes
        tail = self.data[end - 128:end]
        version, _, _, incompat, uuid, generation, first, last, birth_max = struct.unpack_from("<IIII16sQQQQ", tail, 8)
        said, footer_bytes, count, descriptors_bytes, units, kind = struct.unpack_from("<IIIIIH", tail, 72)
        if tail[:8] != b"HRFOOT01" or (version, incompat, uuid, said) != (1, 0, self.uuid, segment):
            return None
        if crc32c(tail[:124]) != struct.unpack_from("<I", tail, 124)[0] or descriptors_bytes + 128 > footer_bytes > self.segment_bytes:
            return None
        body = self.data[end - footer_bytes:end - footer_bytes + descriptors_bytes]
        whole = crc32c(body) == struct.unpack_from("<I", tail, 116)[0]
        records = descriptors(body, count, self.super["chunk_bytes"]) if whole else None
        return Trailer(segment, generation, first, last, birth_max, footer_bytes, descriptors_bytes, units, kind, records, records is not None)

    def _segment(self, segment):
        """Section 6, steps 2 and 3."""
        head, tail = self.unit(segment, 0), self._trailer(segment)
        self.trailers[segment], self.units[segment] = tail, []
        if tail and tail.kind == 1 and not (head and head.generation >= tail.generation and head.kind == 2):
            sealed = not (head and head.kind == 1 and head.generation > tail.generation)
            self.state[segment] = "sealed" if sealed and tail.whole else "walk"
            if sealed and not tail.whole:
                self.footer_lost.add(segment)
        elif head and head.kind == 1 and not (tail and tail.generation >= head.generation):
            self.state[segment] = "walk"
        else:
            self.state[segment] = "free"
            return
        off = 0
        while head and head.kind == 1 and (not self.units[segment] or head.generation == self.units[segment][0].generation):
            self.units[segment].append(head)
            off += head.bytes
            head = self.unit(segment, off) if off + 128 <= self.segment_bytes else None

    def value(self, segment, record):
        at = self.base + self.super["meta_bytes"] + segment * self.segment_bytes + record.value_off
        return self.data[at:at + record.stored]

    def value_is_right(self, segment, record):
        value, step = self.value(segment, record), self.super["chunk_bytes"]
        return tuple(crc32c(value[at:at + step]) for at in range(0, len(value), step)) == record.crcs

    def live(self, now_ms=None):
        """Section 6, steps 4 to 6: [(segments of its parts, first descriptor, its parts)] of every block that counts."""
        now_ms = time.time() * 1000 if now_ms is None else now_ms
        stable = max((unit.stable for units in self.units.values() for unit in units), default=0)
        rivals, parts = {}, {}
        for segment, state in self.state.items():
            if state == "sealed":
                found = [(self.trailers[segment].generation, record) for record in self.trailers[segment].records]
            else:
                found = [(unit.generation, record) for unit in self.units[segment] for record in unit.records
                         if record.kind != 1 or (unit.sequence <= stable and segment not in self.footer_lost) or
                         self.value_is_right(segment, record)]
            for generation, record in found:
                space = self.spaces.get(record.space)
                if space is None or space[0] != record.generation:
                    continue
                name = (record.space, record.id)
                if record.kind == 1 and record.parts > 1:
                    slot = parts.setdefault((*name, record.put_number), {})
                    if record.part not in slot or slot[record.part][0] < generation:
                        slot[record.part] = (generation, segment, record)
                else:
                    rivals.setdefault(name, []).append(((record.birth, generation), segment, record))
        blocks = []
        for name, records in rivals.items():
            for _, segment, record in sorted(records, key=lambda rival: rival[0], reverse=True):
                pieces = parts.get((*name, record.put_number), {}) if record.kind == 3 else {0: (0, segment, record)}
                if len(pieces) < max(record.parts, 1):
                    continue  # a commit whose parts are not all there
                if record.kind != 2 and not (record.expiry_ms and record.expiry_ms <= now_ms):
                    blocks.append([(at, piece) for _, at, piece in (pieces[part] for part in sorted(pieces))])
                break
        return blocks


def slices(path):
    with open(path, "rb") as file:
        data = file.read()
    first = Slice(data, 0)
    return [first] + [Slice(data, index * first.super["slice_bytes"]) for index in range(1, first.super["shards_count"])]


def main():
    report = {"spaces": [], "segments": {}, "blocks": []}
    for one in slices(sys.argv[1]):
        for number, (generation, digest, label) in one.spaces.items():
            report["spaces"].append({"number": number, "generation": generation, "digest": digest.hex(), "label": label})
        for state in one.state.values():
            report["segments"][state] = report["segments"].get(state, 0) + 1
        for pieces in one.live():
            first = pieces[0][1]
            value = b"".join(one.value(segment, piece) for segment, piece in pieces)
            block = {"space": one.spaces[first.space][1].hex(), "key": first.key.decode("latin-1"), "id": first.id.hex(), "bytes": len(value),
                     "birth": first.birth, "position": first.position, "right": all(one.value_is_right(*piece) for piece in pieces)}
            if "--values" in sys.argv:
                block["sha256"] = hashlib.sha256(value).hexdigest()
            report["blocks"].append(block)
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
