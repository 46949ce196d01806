"""A client of the wire in plain Python, written from docs/protocol and docs/format/identity.md alone. Standard library only.

It does no more than a test asks for: nothing is checked behind the caller's back, and every field can be made wrong. `Connection`
speaks frames; `Store` on top of it does whole operations and checks what comes back, CRCs included.
"""
import ctypes
import ctypes.util
import hashlib
import secrets
import socket
import struct
import time

MAGIC, VERSION, HEADER_BYTES = b"HRW1", 1, 64
HELLO, AUTH, SPACE, PING, MAP, STAT = 1, 2, 3, 4, 5, 6
PUT, GET, EXISTS, TOUCH, DELETE, PREFETCH, RELEASE, UNBORROW, LIST, CANCEL = range(16, 26)
GOAWAY, CHUNK, STAGING = 32, 33, 34
SPACE_OPEN, SPACE_LIST, SPACE_USAGE, SPACE_DROP, SPACE_SET = 1, 2, 3, 4, 5
FLAG_ANSWER, FLAG_LAST, FLAG_REFUSED, FLAG_SILENT = 1, 2, 4, 8
RAM, STABLE = 0, 1
OK, MISS, REFUSED, INVALID = 0, 1, 2, 3
REASONS = ["none", "absent", "evicted", "expired", "deleted", "quota", "deadline", "corrupt", "size_mismatch", "owner_down", "busy",
           "cancelled"]
FRAME_STATUS = {0: "ok", 1: "version", 2: "auth", 3: "wrong shard", 4: "unknown space", 5: "too many connections", 6: "busy",
                7: "space table full", 8: "shard failed", 9: "draining", 10: "not supported", 11: "read only"}
CHUNK_BYTES = 65536
ANY = (1 << 64) - 1
HEADER = struct.Struct("<4sBBHQIBBHIIIIQIQI")
assert HEADER.size == HEADER_BYTES


class Closed(Exception):
    """The peer ended the connection."""


class Refused(Exception):
    def __init__(self, frame):
        super().__init__(f"opcode {frame.opcode}: {FRAME_STATUS.get(frame.status, frame.status)}")
        self.status = frame.status
        self.frame = frame


# -- checksums and identities -------------------------------------------------------------------------------------------------

def _crc_table():
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc_table()


def crc32c_plain(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_fast():
    """ISA-L's, where it is and agrees with the plain one: the tests move tens of megabytes."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("isal") or "libisal.so.2")
        function = library.crc32_iscsi
    except (OSError, AttributeError):
        return crc32c_plain
    function.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    function.restype = ctypes.c_uint32

    def fast(data, crc=0):
        data = bytes(data)
        return function(data, len(data), crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    sample = bytes(range(256)) * 3
    return fast if fast(sample, 7) == crc32c_plain(sample, 7) else crc32c_plain


crc32c = _crc_fast()
assert crc32c(b"123456789") == 0xE3069283


def chunk_crcs(value):
    return [crc32c(value[at:at + CHUNK_BYTES]) for at in range(0, len(value), CHUNK_BYTES)]


def space_digest(pairs):
    """SHA-256 over a version byte and the length-framed pairs, sorted by name."""
    text = b"\x01"
    for name, value in sorted(pairs.items()):
        text += struct.pack("<I", len(name)) + name + struct.pack("<I", len(value)) + value
    return hashlib.sha256(text).digest()


def block_id(digest, key):
    """First 16 bytes of SHA-256(version byte, digest, zeros to 64 bytes, key)."""
    return hashlib.sha256((b"\x01" + digest).ljust(64, b"\0") + key).digest()[:16]


def route_of(ident):
    return int.from_bytes(ident[:8], "little")


def pad8(data):
    return data + bytes(-len(data) % 8)


# -- frames -------------------------------------------------------------------------------------------------------------------

class Frame:
    def __init__(self, header, items=b"", payload=b""):
        (self.magic, self.version, self.opcode, self.flags, self.request, self.deadline, self.priority, self.ack, self.status,
         self.space, self.count, self.items_bytes, self.lease, self.payload_bytes, self.items_crc, _, self.crc) = HEADER.unpack(header)
        self.items, self.payload = items, payload

    @property
    def last(self):
        return bool(self.flags & FLAG_LAST)


def frame(opcode, items=b"", payload=b"", *, request=1, flags=0, deadline=0, priority=2, ack=RAM, status=0, space=0, count=0, lease=0,
          magic=MAGIC, version=VERSION, items_bytes=None, payload_bytes=None, items_crc=None, crc=None):
    """The bytes of a frame. What is not given is made right; what is given is sent as it is."""
    head = HEADER.pack(magic, version, opcode, flags, request, deadline, priority, ack, status, space, count,
                       len(items) if items_bytes is None else items_bytes, lease,
                       len(payload) if payload_bytes is None else payload_bytes,
                       crc32c(items) if items_crc is None else items_crc, 0, 0)[:60]
    return head + struct.pack("<I", crc32c(head) if crc is None else crc) + items + payload


def client_hello(lowest=1, highest=1, features=0, shard=bytes(16), nonce=None, inflight=64 << 20, pid=1, name=b"wire.py", tenant=b""):
    fixed = struct.pack("<HHI16s16sQIHHH38s", lowest, highest, features, shard, nonce or secrets.token_bytes(16), inflight, pid,
                        len(name), 0, len(tenant), bytes(38))
    assert len(fixed) == 96
    return pad8(fixed + name + tenant)


class ServerHello:
    BYTES = 128

    def __init__(self, items):
        (self.version, self.auth, self.features, self.shard, self.node, self.nonce, self.part_bytes, self.chunk_bytes, self.items_max,
         self.payload_max, self.time_ms, self.requests_max, self.request_bytes_max, self.tenant,
         self.connection) = struct.unpack_from("<HHI16s16s16sIIIIQIIIQ", items)
        self.map = Map(items[self.BYTES:])


class Map:
    def __init__(self, data):
        self.epoch, shards, nodes = struct.unpack_from("<QII", data)
        at, self.nodes, self.shards = 16, [], []
        for _ in range(nodes):
            uuid, state, length = struct.unpack_from("<16sB3xI", data, at)
            text = data[at + 48:at + 48 + length].decode()
            self.nodes.append((uuid, state, text))
            at += 48 + length + -length % 8
        for _ in range(shards):
            uuid, weight, node, state = struct.unpack_from("<16sQIB", data, at)
            self.shards.append((uuid, weight, node, state))
            at += 48


def connect(url, timeout=20.0):
    kind, _, rest = url.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Connection:
    """Sends frames and hands back the ones that come, pushes set aside."""

    def __init__(self, url, hello=True, **hello_fields):
        self.sock = connect(url)
        self.requests = 0
        self.pushes = []
        self.server = None
        if hello:
            self.server = ServerHello(self.call(HELLO, client_hello(**hello_fields), count=1).items)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def send_bytes(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def send(self, opcode, items=b"", payload=b"", **fields):
        self.requests += 1
        self.send_bytes(frame(opcode, items, payload, request=self.requests, **fields))
        return self.requests

    def _read(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                got = self.sock.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not got:
                raise Closed(f"end of stream after {len(data)} of {count} bytes")
            data += got
        return bytes(data)

    def receive(self):
        """The next frame, whatever it is, checked as far as the page on frames goes."""
        head = self._read(HEADER_BYTES)
        got = Frame(head)
        assert got.magic == MAGIC and got.version == VERSION, head
        assert got.crc == crc32c(head[:60]), "an answer's header has a wrong CRC"
        assert got.items_bytes % 8 == 0 and got.items_bytes <= 2 << 20 and got.payload_bytes <= 64 << 20
        got.items = self._read(got.items_bytes)
        assert got.items_crc == crc32c(got.items), "an answer's items have a wrong CRC"
        got.payload = self._read(got.payload_bytes)
        return got

    def answer(self, request=None):
        """The next answer (to `request`); pushes are set aside."""
        while True:
            got = self.receive()
            if got.request == 0 and not got.flags & FLAG_ANSWER:
                self.pushes.append(got)
                continue
            assert got.flags & FLAG_ANSWER, f"neither an answer nor a push: opcode {got.opcode} request {got.request}"
            if request is not None:
                assert got.request == request, f"answer to {got.request}, expected one to {request}"
            if got.flags & FLAG_REFUSED or (got.opcode == HELLO and got.status):
                raise Refused(got)
            return got

    def call(self, opcode, items=b"", payload=b"", **fields):
        """One request, one answer frame."""
        got = self.answer(self.send(opcode, items, payload, **fields))
        assert got.opcode == opcode and got.last, (got.opcode, got.flags)
        return got

    def ended(self, within=20.0):
        """True when the peer ends the connection (what it still sends is thrown away)."""
        self.sock.settimeout(0.2)
        until = time.monotonic() + within
        while time.monotonic() < until:
            try:
                if not self.sock.recv(1 << 16):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
        return False


# -- items --------------------------------------------------------------------------------------------------------------------

ROW = struct.Struct("<II32s64sQQQQQQQQ24x")
assert ROW.size == 192


class Row:
    def __init__(self, data):
        (self.number, self.generation, self.digest, label, self.blocks, self.bytes, self.quota, self.pin_budget, self.pinned,
         self.gets, self.hits, self.puts) = ROW.unpack(data)
        self.label = label.rstrip(b"\0").decode()


def put_item(digest, key, value, *, ident=None, route=None, parent=bytes(16), block_bytes=None, put_number=0, staging_off=0, ttl_ms=0,
             position=0, cost_us=0, part=0, parts=1, flags=0, class_hint=0, region=0, crcs=None, stored_bytes=None, key_len=None,
             crc_count=None):
    ident = ident or block_id(digest, key)
    crcs = chunk_crcs(value) if crcs is None else crcs
    sent_key = key if part == 0 else b""
    fixed = struct.pack("<16sQ16sQQQIIIIHHHHHBBI32x", ident, route_of(ident) if route is None else route, parent,
                        len(value) if block_bytes is None else block_bytes, put_number, staging_off, ttl_ms, position, cost_us,
                        len(value) if stored_bytes is None else stored_bytes, part, parts,
                        len(sent_key) if key_len is None else key_len, len(crcs) if crc_count is None else crc_count, flags, class_hint,
                        0, region)
    assert len(fixed) == 128
    return pad8(fixed + sent_key + bytes(-len(sent_key) % 4) + struct.pack(f"<{len(crcs)}I", *crcs))


def get_item(ident, *, route=None, block_bytes=ANY, part=0, flags=0, offset=0, wanted=0xFFFFFFFF):
    item = struct.pack("<16sQQHHII12x", ident, route_of(ident) if route is None else route, block_bytes, part, flags, offset, wanted)
    assert len(item) == 56
    return item


def id_item(ident, route=None):
    return struct.pack("<16sQ", ident, route_of(ident) if route is None else route)


class GetAnswer:
    BYTES = 64

    def __init__(self, data, at):
        (self.index, self.status, self.reason, self.flags, self.block_bytes, self.birth, self.part_bytes, self.payload_bytes,
         self.crc_off, crcs, extents, self.borrow, self.expiry_ms) = struct.unpack_from("<IBBHQQIIIHHQQ8x", data, at)
        at += self.BYTES
        self.crcs = list(struct.unpack_from(f"<{crcs}I", data, at))
        at += crcs * 4 + -(crcs * 4) % 8
        self.extents = [struct.unpack_from("<IIQ", data, at + 16 * i) for i in range(extents)]
        self.end = at + 16 * extents
        self.value = b""


class Store:
    """Whole operations on one space over one connection."""

    def __init__(self, connection, name=b"default", digest=None):
        self.connection = connection
        self.digest = digest or space_digest({b"name": name})
        label = name[:64]
        items = pad8(struct.pack("<II32sH6x", SPACE_OPEN, 0, self.digest, len(label)) + label)
        self.row = Row(connection.call(SPACE, items, count=1).items[:192])
        self.space = self.row.number

    def ident(self, key):
        return block_id(self.digest, key)

    def put_many(self, pairs, *, ack=RAM, **fields):
        """-> [(status, reason, flags)] in the order of pairs, values of one part each."""
        items = b"".join(put_item(self.digest, key, value, **fields) for key, value in pairs)
        request = self.connection.send(PUT, items, b"".join(value for _, value in pairs), space=self.space, count=len(pairs), ack=ack)
        answers = [None] * len(pairs)
        while True:
            got = self.connection.answer(request)
            for at in range(0, got.count * 24, 24):
                index, status, reason, flags = struct.unpack_from("<IBBH", got.items, at)
                assert answers[index] is None, f"item {index} answered twice"
                answers[index] = (status, reason, flags)
            if got.last:
                assert None not in answers, "the last answer came before every item was answered"
                return answers

    def put(self, key, value, **fields):
        status, reason, flags = self.put_many([(key, value)], **fields)[0]
        return (status, REASONS[reason], flags)

    def get_many(self, keys, **fields):
        """-> [GetAnswer] in the order of keys. Every byte of an OK is compared with the CRCs that came with it."""
        request = self.connection.send(GET, b"".join(get_item(self.ident(key), **fields) for key in keys), space=self.space,
                                       count=len(keys))
        answers = [None] * len(keys)
        while True:
            got = self.connection.answer(request)
            at = payload = 0
            for _ in range(got.count):
                answer = GetAnswer(got.items, at)
                at = answer.end
                answer.value = got.payload[payload:payload + answer.payload_bytes]
                payload += answer.payload_bytes
                if answer.status == OK and not answer.flags & 1:
                    assert chunk_crcs(answer.value) == answer.crcs, "an answer's bytes do not match its CRCs"
                assert answers[answer.index] is None, f"item {answer.index} answered twice"
                answers[answer.index] = answer
            assert payload == len(got.payload) and at == len(got.items)
            if got.last:
                assert None not in answers
                return answers

    def get(self, key, **fields):
        """-> (value, None) or (None, reason)."""
        answer = self.get_many([key], **fields)[0]
        return (answer.value, None) if answer.status == OK else (None, REASONS[answer.reason])

    def _bytes_per_item(self, opcode, keys, **fields):
        got = self.connection.call(opcode, b"".join(id_item(self.ident(key)) for key in keys), space=self.space, count=len(keys),
                                   **fields)
        return got.items[:len(keys)], got.items[len(keys) + -len(keys) % 8:]

    def exists(self, keys, lease_ms=0):
        """-> [(present, leased, reason, block_bytes)]"""
        flags, lengths = self._bytes_per_item(EXISTS, keys, lease=lease_ms)
        return [(bool(flag & 0x80), bool(flag & 0x40), REASONS[flag & 0x3F], struct.unpack_from("<Q", lengths, 8 * i)[0])
                for i, flag in enumerate(flags)]

    def touch(self, keys):
        return [bool(flag & 0x80) for flag in self._bytes_per_item(TOUCH, keys)[0]]

    def delete(self, keys, ack=RAM):
        return [bool(flag & 0x80) for flag in self._bytes_per_item(DELETE, keys, ack=ack)[0]]

    def prefetch(self, keys):
        return [bool(flag & 0x80) for flag in self._bytes_per_item(PREFETCH, keys)[0]]

    def usage(self):
        return Row(self.connection.call(SPACE, struct.pack("<II", SPACE_USAGE, 0), space=self.space, count=1).items[:192])

    def drop(self):
        return Row(self.connection.call(SPACE, struct.pack("<II", SPACE_DROP, 0), space=self.space, count=1).items[:192])

    def list(self, page=64):
        """-> {key: (id, parent, route, block_bytes, position)} of every block."""
        cursor, blocks = 0, {}
        while True:
            got = self.connection.call(LIST, struct.pack("<QII", cursor, page, 0), space=self.space, count=1)
            cursor, count = struct.unpack_from("<QI", got.items)
            at = 16
            for _ in range(count):
                length, key_len, ident, parent, route, block_bytes, _, position = struct.unpack_from("<IH2x16s16sQQQI", got.items, at)
                key = got.items[at + 72:at + 72 + key_len]
                assert block_id(self.digest, key) == ident
                blocks[key] = (ident, parent, route, block_bytes, position)
                at += length
            if cursor == 0:
                return blocks
