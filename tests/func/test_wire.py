"""The wire as docs/protocol describes it, spoken by wire.py, which was written from that page alone."""
import random
import struct

import pytest
import wire
from blocks import value_of
from wire import ANY, Connection, Refused, Store


@pytest.fixture(params=["tcp", "unix"])
def url(request, node):
    return node.url(request.param)


@pytest.fixture
def store(url, request):
    with Connection(url) as connection:
        yield Store(connection, request.node.name.encode()[:200])


def test_hello(node, url):
    """What HELLO's answer promises is within the page's bounds, and the map names the shard that answered."""
    with Connection(url) as connection:
        server = connection.server
        assert (server.version, server.auth, server.chunk_bytes) == (1, 0, 65536)
        assert server.part_bytes in (1 << 20, 4 << 20)
        assert 0 < server.items_max <= 16384 and 0 < server.payload_max <= 64 << 20
        assert server.requests_max > 0 and server.request_bytes_max > 0
        assert len(server.map.shards) == 2 and len(server.map.nodes) == 1
        assert {index for _, _, index, _ in server.map.shards} == {0}
        assert server.shard in [uuid for uuid, _, _, _ in server.map.shards]
        assert server.node == server.map.nodes[0][0]
        assert f"tcp=127.0.0.1:{node.tcp_port}" in server.map.nodes[0][2]
        assert all(weight > 0 for _, weight, _, _ in server.map.shards)


def test_each_shard_is_reached(url):
    """A HELLO that names a shard is answered by that shard; one that names none of this node's is refused with a map."""
    with Connection(url) as connection:
        shards = [uuid for uuid, _, _, _ in connection.server.map.shards]
    for shard in shards:
        with Connection(url, shard=shard) as connection:
            assert connection.server.shard == shard
            assert Store(connection, b"shard").put(b"k", b"v")[0] == wire.OK
    with Connection(url, hello=False) as connection:
        with pytest.raises(Refused) as refused:
            connection.call(wire.HELLO, wire.client_hello(shard=b"\xab" * 16), count=1)
        assert wire.FRAME_STATUS[refused.value.status] == "wrong shard"


def test_version_not_supported(url):
    with Connection(url, hello=False) as connection:
        with pytest.raises(Refused) as refused:
            connection.call(wire.HELLO, wire.client_hello(lowest=900, highest=901), count=1)
        assert wire.FRAME_STATUS[refused.value.status] == "version"


def test_ping_map_stat(url):
    with Connection(url) as connection:
        connection.call(wire.PING)
        assert wire.Map(connection.call(wire.MAP).items).shards == connection.server.map.shards
        assert connection.call(wire.STAT).payload.lstrip()[:1] == b"{"


def test_put_get_delete(store):
    """A block comes back as it went in; then it is deleted and says so."""
    key, value = b"one", value_of(b"one", 200_001)
    assert store.get(key) == (None, "absent")
    assert store.put(key, value) == (wire.OK, "none", 0)
    assert store.get(key) == (value, None)
    assert store.exists([key, b"other"]) == [(True, False, "none", len(value)), (False, False, "absent", 0)]
    assert store.touch([key, b"other"]) == [True, False]
    assert store.delete([key, b"other"], ack=wire.STABLE) == [True, False]
    assert store.get(key) == (None, "deleted")
    assert store.put(key, b"again")[0] == wire.OK
    assert store.get(key) == (b"again", None)


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20])
def test_lengths(store, length):
    key = f"length{length}".encode()
    value = value_of(key, length)
    assert store.put(key, value, ack=wire.STABLE)[0] == wire.OK
    assert store.get(key) == (value, None)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 1023, 1024])
def test_key_lengths(store, length):
    key = bytes(random.Random(length).randrange(256) for _ in range(length))
    assert store.put(key, b"value")[0] == wire.OK
    assert store.get(key) == (b"value", None)


def test_duplicates(store):
    """The first to complete wins; a duplicate says so, and whether its bytes differ; replace takes the place."""
    assert store.put(b"k", b"first") == (wire.OK, "none", 0)
    assert store.put(b"k", b"first") == (wire.OK, "none", 1)
    assert store.put(b"k", b"other") == (wire.OK, "none", 3)
    assert store.get(b"k") == (b"first", None)
    assert store.put(b"k", b"other", flags=1)[0] == wire.OK
    assert store.get(b"k") == (b"other", None)


def test_ranges(store):
    value = value_of(b"range", 300_000)
    store.put(b"range", value)
    for offset, wanted in ((0, 10), (1, 65536), (65536, 65536), (70_000, 130_000), (299_999, 1), (100, 0xFFFFFFFF)):
        end = min(len(value), offset + wanted)
        assert store.get(b"range", offset=offset, wanted=wanted) == (value[offset:end], None), (offset, wanted)


def test_size_mismatch(store):
    """Another length than the expected one is a miss that tells the real length."""
    store.put(b"size", b"12345")
    assert store.get(b"size", block_bytes=5) == (b"12345", None)
    answer = store.get_many([b"size"], block_bytes=6)[0]
    assert (answer.status, wire.REASONS[answer.reason], answer.block_bytes) == (wire.MISS, "size_mismatch", 5)


def test_batches(store):
    """Hundreds of items of many lengths in one frame; each answered once, misses between hits."""
    rng = random.Random(1)
    pairs = [(f"b{i}".encode(), rng.randbytes(rng.choice((0, 10, 5000, 70_000)))) for i in range(300)]
    assert all(status == wire.OK for status, _, _ in store.put_many(pairs))
    keys = [key for pair in pairs for key in (pair[0], b"not " + pair[0])]
    rng.shuffle(keys)
    values = dict(pairs)
    for key, answer in zip(keys, store.get_many(keys)):
        assert (answer.value if answer.status == wire.OK else None) == values.get(key)
    assert [there for there, _, _, _ in store.exists(keys)] == [key in values for key in keys]
    assert set(store.list()) == set(values)


def test_parts(store):
    """A block of two parts is not there until the second has come; then it is there whole."""
    part = store.connection.server.part_bytes
    key, value = b"parts", value_of(b"parts", part + 1000)
    ident = store.ident(key)

    def send(number):
        piece = value[number * part:(number + 1) * part]
        item = wire.put_item(store.digest, key, piece, ident=ident, block_bytes=len(value), put_number=77, part=number, parts=2)
        return struct.unpack_from("<IBBH", store.connection.call(wire.PUT, item, piece, space=store.space, count=1).items)

    assert send(1) == (0, wire.OK, 0, 4), "held, not decided"
    assert store.exists([key])[0][0] is False
    assert store.get(key) == (None, "absent")
    assert send(0) == (0, wire.OK, 0, 0)
    assert store.exists([key]) == [(True, False, "none", len(value))]
    answers = [store.get_many([key], part=number)[0] for number in (0, 1)]
    assert b"".join(answer.value for answer in answers) == value
    assert answers[0].birth == answers[1].birth != 0
    assert {answer.block_bytes for answer in answers} == {len(value)}


def test_wrong_crc_is_not_stored(store):
    """The shard compares what it received with the writer's CRCs before it acknowledges."""
    value = bytes(100_000)
    status, reason, _ = store.put(b"crc", value, crcs=[wire.crc32c(value[:65536]), 1])
    assert status in (wire.REFUSED, wire.INVALID) and reason == "corrupt", (status, reason)
    assert store.get(b"crc") == (None, "absent")


def test_foreign_id_is_not_stored(store):
    """The id must be the one of key and space."""
    status, _, _ = store.put(b"key", b"value", ident=store.ident(b"another key"))
    assert status == wire.INVALID
    assert store.get(b"another key") == (None, "absent")


def test_spaces_are_apart(url, request):
    with Connection(url) as connection:
        name = request.node.name.encode()
        one, two = Store(connection, name + b" 1"), Store(connection, name + b" 2")
        one.put(b"k", b"one")
        assert two.get(b"k") == (None, "absent")
        # Even an id of the other space, asked for with this one's number, is a clean miss.
        answer = connection.call(wire.GET, wire.get_item(one.ident(b"k")), space=two.space, count=1)
        assert wire.GetAnswer(answer.items, 0).status == wire.MISS
        two.put(b"k", b"two")
        assert one.get(b"k") == (b"one", None)
        one.drop()
        assert one.get(b"k")[0] is None and two.get(b"k") == (b"two", None)
        usage = two.usage()
        assert (usage.blocks, usage.bytes) == (1, 3)


def test_unknown_space(url):
    with Connection(url) as connection:
        with pytest.raises(Refused) as refused:
            connection.call(wire.EXISTS, wire.id_item(bytes(16)), space=999_999, count=1)
        assert wire.FRAME_STATUS[refused.value.status] == "unknown space"


def test_expiry(store):
    """A block with a time to live is there, says how long, and is gone after it."""
    store.put(b"short", b"x", ttl_ms=300)
    store.put(b"long", b"y", ttl_ms=3_600_000)
    answer = store.get_many([b"long"])[0]
    assert 3_000_000 < answer.expiry_ms <= 3_600_000
    import harness
    harness.wait_for("expiry", lambda: store.get(b"short")[0] is None)
    assert store.get(b"short") == (None, "expired")
    assert store.get(b"long") == (b"y", None)


def test_lease(store):
    store.put(b"leased", b"x")
    assert store.exists([b"leased", b"absent"], lease_ms=5000) == [(True, True, "none", 1), (False, False, "absent", 0)]
    store.connection.send(wire.RELEASE, wire.id_item(store.ident(b"leased")), space=store.space, count=1, flags=wire.FLAG_SILENT)
    assert store.get(b"leased") == (b"x", None)


def test_requests_in_flight(store):
    """Many requests at once; each gets its own answer, in whatever order."""
    value = value_of(b"flight", 5000)
    store.put(b"flight", value)
    sent = {store.connection.send(wire.GET, wire.get_item(store.ident(b"flight")), space=store.space, count=1) for _ in range(100)}
    while sent:
        got = store.connection.answer()
        assert got.payload == value and got.last
        sent.remove(got.request)


def test_reserved_bytes_are_ignored(store):
    item = bytearray(wire.get_item(store.ident(b"absent"), block_bytes=ANY))
    item[44:56] = b"\xff" * 12
    assert wire.GetAnswer(store.connection.call(wire.GET, bytes(item), space=store.space, count=1).items, 0).status == wire.MISS
