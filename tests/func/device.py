"""Where things are on a device, by tests/data/read_device.py: for tests that damage one thing and no other."""
from collections import namedtuple

import read_device
import wire

read_device.crc32c = wire.crc32c  # The same function, checked against the plain one, and fast.

# A byte range: kind is "superblock", "footer", "trailer", "header", "payload" or "padding".
Range = namedtuple("Range", "kind start end segment sealed unit_off record")


class Device:
    """The ranges of an image of one slice as it is now; only what is valid is listed."""

    def __init__(self, path):
        self.slice, = read_device.slices(path)
        self.data = self.slice.data
        self.ranges = [Range("superblock", at, at + read_device.PAGE, None, None, None, None) for at in (0, 512 << 10)]
        for segment, state in self.slice.state.items():
            start = self.slice.super["meta_bytes"] + segment * self.slice.segment_bytes
            end, sealed = start + self.slice.segment_bytes, state == "sealed"
            if sealed:
                trailer = self.slice.trailers[segment]
                footer = end - trailer.footer_bytes
                self.ranges.append(Range("footer", footer, footer + trailer.descriptors_bytes, segment, True, None, None))
                self.ranges.append(Range("trailer", end - 128, end, segment, True, None, None))
            for unit in self.slice.units[segment]:
                self.ranges.append(Range("header", start + unit.off, start + unit.off + 128 + unit.descriptors_bytes, segment, sealed,
                                         unit.off, None))
                for record in unit.records:
                    if record.kind == 1 and record.stored:
                        at = start + record.value_off
                        self.ranges.append(Range("payload", at, at + record.stored, segment, sealed, unit.off, record))
                        if record.stored % read_device.PAGE:
                            self.ranges.append(Range("padding", at + record.stored, at + record.stored + -record.stored % read_device.PAGE,
                                                     segment, sealed, unit.off, record))

    def of(self, kind, sealed=None):
        return [one for one in self.ranges if one.kind == kind and (sealed is None or one.sealed == sealed)]
