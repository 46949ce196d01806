"""Where things are on a device, from docs/format/README.md: for tests that damage one thing and no other."""
import struct
from collections import namedtuple

import wire

PAGE = 4096
META_BYTES = 1 << 20

# What a byte range is: kind is "superblock", "space table", "header", "footer", "trailer", "payload" or "padding".
Range = namedtuple("Range", "kind start end segment sealed unit_off record")
Record = namedtuple("Record", "kind ident key part parts put_number birth space length")


def _descriptors(data, count):
    at, found = 0, []
    for _ in range(count):
        size, key_len, kind = struct.unpack_from("<IHB", data, at)
        ident = data[at + 8:at + 24]
        space, = struct.unpack_from("<I", data, at + 52)
        birth, _, put_number, _, logical, stored, part, parts, value_off = struct.unpack_from("<QQQQIIHHI", data, at + 64)
        assert logical == stored
        found.append((Record(kind, ident, data[at + 160:at + 160 + key_len], part, parts, put_number, birth, space, stored), value_off))
        at += size
    return found


class Device:
    """The ranges of an image as it is now. Only what is valid is listed."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = data = file.read()
        assert data[:8] == b"HRSUPER1" and wire.crc32c(data[:4092]) == struct.unpack_from("<I", data, 4092)[0]
        self.uuid = data[40:56]
        assert struct.unpack_from("<I", data, 60)[0] == 1, "one slice is enough for these tests"
        self.segment_bytes, self.segments = struct.unpack_from("<QI", data, 88)
        self.ranges = [Range("superblock", 0, 4096, None, None, None, None),
                       Range("superblock", 512 << 10, (512 << 10) + 4096, None, None, None, None)]
        for index in range(self.segments):
            self._segment(index)

    def _segment(self, index):
        data, base = self.data, META_BYTES + index * self.segment_bytes
        head, end = data[base:base + 128], base + self.segment_bytes
        trailer = data[end - 128:end]
        sealed, generation = False, struct.unpack_from("<Q", head, 40)[0]
        if head[:8] == b"HRUNIT01" and struct.unpack_from("<H", head, 96)[0] == 2:
            return  # freed
        if trailer[:8] == b"HRFOOT01" and trailer[24:40] == self.uuid and wire.crc32c(trailer[:124]) == struct.unpack_from("<I", trailer, 124)[0]:
            kind, = struct.unpack_from("<H", trailer, 92)
            sealed = kind == 1 and struct.unpack_from("<Q", trailer, 40)[0] == generation
            if sealed:
                footer_bytes, _, descriptors_bytes = struct.unpack_from("<III", trailer, 76)
                start = end - footer_bytes
                self.ranges.append(Range("footer", start, start + descriptors_bytes, index, True, None, None))
                self.ranges.append(Range("trailer", end - 128, end, index, True, None, None))
        offset = 0
        while offset + 128 <= self.segment_bytes:
            at = base + offset
            header = data[at:at + 128]
            if header[:8] != b"HRUNIT01" or header[24:40] != self.uuid or struct.unpack_from("<Q", header, 40)[0] != generation:
                return
            said_segment, unit_off, header_bytes, unit_bytes, count, descriptors_bytes, kind = struct.unpack_from("<IIIIIIH", header, 72)
            descriptors = data[at + 128:at + 128 + descriptors_bytes]
            if wire.crc32c(header[:124] + descriptors) != struct.unpack_from("<I", header, 124)[0]:
                return
            assert (said_segment, unit_off, kind) == (index, offset, 1)
            self.ranges.append(Range("header", at, at + 128 + descriptors_bytes, index, sealed, offset, None))
            for record, value_off in _descriptors(descriptors, count):
                if record.kind == 1 and record.length:
                    start = base + value_off
                    self.ranges.append(Range("payload", start, start + record.length, index, sealed, offset, record))
                    if record.length % PAGE:
                        self.ranges.append(Range("padding", start + record.length, start + record.length + -record.length % PAGE, index,
                                                 sealed, offset, record))
            offset += unit_bytes

    def of(self, kind, sealed=None):
        return [one for one in self.ranges if one.kind == kind and (sealed is None or one.sealed == sealed)]
