"""libheadrace from a caller's side, over each transport: the calls and guarantees of include/headrace/*.h."""
import errno
import os
import random
import select
import subprocess
import threading
import time

import libheadrace as lib
import pytest
from blocks import assert_all_there, fill, key_of, look, value_of
from harness import MIB, ROOT, format_image, wait_for


@pytest.fixture
def space(connect, any_url):
    return connect(any_url).space("library")


def test_struct_sizes(tmp_path):
    """The structs of libheadrace.py against those of the headers, by a C program: sizes and the offset of every field."""
    lines = ["#include <headrace/headrace.h>", "#include <stdio.h>", "#include <stddef.h>", "int main(void) {"]
    expected = []
    for name, struct in lib.STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        expected.append(f"{name} {lib.c.sizeof(struct)}")
        for field, _ in struct._fields_:
            if field in ("pad", "pad2", "reserve"):
                continue
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));')
            expected.append(f"{name}.{field} {getattr(struct, field).offset}")
    lines.append("return 0; }")
    (tmp_path / "sizes.c").write_text("\n".join(lines))
    subprocess.run(["cc", f"-I{ROOT}/include", "-o", tmp_path / "sizes", tmp_path / "sizes.c"], check=True)
    said = subprocess.run([tmp_path / "sizes"], capture_output=True, check=True).stdout.decode().splitlines()
    assert said == expected


def test_version_and_names():
    assert lib.library().hr_version().decode().count(".") == 2
    assert [lib.library().hr_reason_name(code).decode() for code in range(12)] == lib.REASONS
    assert all(lib.library().hr_strerror(code) for code in lib.ERRORS.values())


def test_one_block(space):
    assert space.get(b"k") == (None, "absent")
    assert space.exists(b"k") == (None, "absent")
    assert space.put(b"k", b"value") == "none"
    assert space.exists(b"k") == (5, "none")
    assert space.get(b"k") == (b"value", "none")
    assert space.get(b"k", room=4) == (None, "size_mismatch")
    assert space.delete(b"k") == "none"
    assert space.delete(b"k") in ("deleted", "absent")
    assert space.get(b"k") == (None, "deleted")


@pytest.mark.parametrize("length", [0, 1, 4096, 65537, MIB, 4 * MIB, 4 * MIB + 1, 17 * MIB])
@pytest.mark.parametrize("ack", [lib.RAM, lib.STABLE])
def test_lengths(space, length, ack):
    """Values in one piece and in parts, in the caller's own memory."""
    value = value_of(b"length", length)
    space.put_until_stored([(b"k", value)], ack=ack)
    assert space.exists(b"k") == (length, "none")
    got = space.get_batch([b"k"], max(length, 1))
    assert got.items[0].status == lib.OK and got.items[0].len == length and got.value(0) == value


@pytest.mark.slow
def test_largest_value(work):
    """Exactly 128 MiB."""
    with lib.Client(f"file:{work}/image?size=512MiB&dram=256MiB") as client:
        space = client.space("largest")
        value = value_of(b"largest", lib.BLOCK_BYTES_MAX)
        space.put_until_stored([(b"k", value)], ack=lib.STABLE, deadline_us=120_000_000)
        got = space.get_batch([b"k"], len(value), deadline_us=120_000_000)
        assert got.items[0].status == lib.OK and got.value(0) == value


def test_scattered_memory(space):
    """A value gathered from pieces is scattered into other pieces."""
    value = value_of(b"scatter", 300_000)
    batch = lib.Batch(1)
    batch.key(0, b"k")
    cuts = [0, 1, 5000, 70_000, 200_001, 300_000]
    batch.memory(0, *[lib._buffer(value[a:b]) for a, b in zip(cuts, cuts[1:])])
    space.run(lib.PUT, batch)
    assert batch.items[0].status == lib.OK
    got = lib.Batch(1)
    got.key(0, b"k")
    pieces = [(lib.c.c_char * n)() for n in (100_000, 7, 150_000, 49_993)]
    got.memory(0, *pieces)
    space.run(lib.GET, got)
    assert got.items[0].status == lib.OK and b"".join(bytes(piece) for piece in pieces) == value


def test_ranges(space):
    """Ranges of a block, across its parts; one behind the end is invalid."""
    value = value_of(b"range", 9 * MIB)
    space.put_until_stored([(b"k", value)])
    for offset, length in ((0, 1), (5, 65536), (4 * MIB - 10, 20), (4 * MIB, 4 * MIB), (9 * MIB - 1, 1), (1234567, 6_000_000)):
        got = space.get_batch([b"k"], length, item={"object_off": offset, "expected_len": len(value)})
        assert got.items[0].status == lib.OK and got.value(0) == value[offset:offset + length], (offset, length)
    got = space.get_batch([b"k"], 10, item={"object_off": 9 * MIB - 5, "expected_len": len(value)})
    assert got.items[0].status == lib.INVALID


def test_size_mismatch_leaves_the_buffer(space):
    space.put(b"k", b"12345678")
    got = lib.Batch(1)
    got.key(0, b"k", expected_len=9)
    memory = lib._buffer(b"untouched")
    got.memory(0, memory)
    space.run(lib.GET, got)
    item = got.items[0]
    assert (item.status, lib.REASONS[item.reason], item.len) == (lib.MISS, "size_mismatch", 8)
    assert bytes(memory) == b"untouched" and not item.flags & lib.TOUCHED


def test_miss_leaves_the_buffer(space):
    got = lib.Batch(1)
    got.key(0, b"nothing")
    memory = lib._buffer(b"untouched")
    got.memory(0, memory)
    done = space.run(lib.GET, got)
    assert bytes(memory) == b"untouched" and not got.items[0].flags & lib.TOUCHED
    assert (done.items_count, done.ok_count, done.prefix_count) == (1, 0, 0)


def test_exists_prefix_and_lease(space):
    """EXISTS of a chain: lengths, the consecutive prefix, leases; release clears the flag."""
    keys = [key_of(index) for index in range(20)]
    fill(space, keys[:7] + keys[8:], 1000)
    batch = space.key_batch(lib.EXISTS, keys, lease_ms=5000)
    assert (batch.completion.items_count, batch.completion.ok_count, batch.completion.prefix_count) == (20, 19, 7)
    assert [item.len for item in batch.items] == [1000] * 7 + [0] + [1000] * 12
    leased = [bool(item.flags & lib.LEASED) for item in batch.items]
    assert leased == [True] * 7 + [False] + [True] * 12
    space.release(batch)
    assert not any(item.flags & lib.LEASED for item in batch.items)


def test_duplicates_and_replace(space):
    assert space.put(b"k", b"first") == "none"
    for value, flags in ((b"first", lib.DUPLICATE), (b"other", lib.DUPLICATE | lib.DIFFERS)):
        item = space.put_batch([(b"k", value)]).items[0]
        assert item.status == lib.OK and item.flags & (lib.DUPLICATE | lib.DIFFERS) == flags
    assert space.get(b"k") == (b"first", "none")
    item = space.put_batch([(b"k", b"other")], item={"flags": lib.REPLACE}).items[0]
    assert item.status == lib.OK
    assert space.get(b"k") == (b"other", "none")


def test_routes(connect, node):
    """One key under two routes is two blocks; a GET needs the route of its PUT; all-shards finds either."""
    space = connect(node.tcp).space("routes")
    assert space.client.stat()
    for number in range(24):
        key = key_of(number, "routed")
        space.put_batch([(key, b"v")], item={"flags": lib.ROUTE, "route": number * 0x9E3779B97F4A7C15 & (1 << 64) - 1})
        got = space.get_batch([key], 1, item={"flags": lib.ROUTE, "route": number * 0x9E3779B97F4A7C15 & (1 << 64) - 1})
        assert got.items[0].status == lib.OK
        assert space.get_batch([key], 1, item={"flags": lib.ALL_SHARDS}).items[0].status == lib.OK
    without = space.get_batch([key_of(number, "routed") for number in range(24)], 1)
    assert any(item.status == lib.MISS for item in without.items), "with two shards some routes lead elsewhere"


def test_ttl(space):
    space.put_batch([(b"short", b"x")], item={"ttl_ms": 300})
    space.put_batch([(b"long", b"y")], item={"ttl_ms": 3_600_000})
    wait_for("expiry", lambda: space.get(b"short")[0] is None)
    assert space.get(b"short") == (None, "expired")
    assert space.get(b"long") == (b"y", "none")


def test_touch_and_prefetch(space):
    fill(space, [b"k"], 100_000)
    for op in (lib.TOUCH, lib.PREFETCH):
        batch = space.key_batch(op, [b"k", b"nothing"])
        assert [item.status for item in batch.items] == [lib.OK, lib.MISS]


def test_list(space):
    """Every block of the space with its key, length, parent and place in the chain; nothing of another space."""
    parent = space.block_id(b"chain/0")
    space.put_batch([(b"chain/0", b"a" * 10)])
    space.put_batch([(b"chain/1", b"b" * 20)], item={"parent": parent, "position": 1})
    fill(space, [key_of(index) for index in range(250)], 500)
    space.client.space("elsewhere").put(b"not mine", b"x")
    found = space.list(page=40)
    assert set(found) == {b"chain/0", b"chain/1"} | {key_of(index) for index in range(250)}
    entry = found[b"chain/1"]
    assert (entry.bytes, entry.position, bytes(entry.parent), bytes(entry.id)) == (20, 1, parent, space.block_id(b"chain/1"))


def test_space_usage_drop_and_quota(connect, any_url):
    client = connect(any_url)
    one, two = client.space("one"), client.space("two")
    fill(one, [key_of(index) for index in range(30)], 10_000)
    fill(two, [key_of(0)], 10_000)
    assert (one.usage().blocks, one.usage().bytes) == (30, 300_000)
    assert {bytes(info.digest) for info in client.spaces()} >= {one.digest(), two.digest()}
    one.drop()
    assert set(look(one, [key_of(index) for index in range(30)], 10_000).values()) <= {"absent", "deleted", "evicted"}
    assert (one.usage().blocks, one.usage().bytes) == (0, 0)
    assert_all_there(two, [key_of(0)], 10_000)
    fill(one, [key_of(1)], 10_000)
    assert_all_there(one, [key_of(1)], 10_000)
    two.set(quota=50_000)
    assert two.usage().quota_bytes == pytest.approx(50_000, abs=8)
    reasons = {two.put(key_of(index), bytes(10_000)) for index in range(1, 20)}
    assert "quota" in reasons
    assert two.usage().bytes <= 50_000


def test_completions(space):
    """Each ticket completes exactly once, by reap or by wait; the event descriptor is readable while any waits to be reaped."""
    client = space.client
    fill(space, [key_of(index) for index in range(10)], 1000)
    tickets, batches = set(), []
    for number in range(200):
        batch = lib.Batch(2)
        for index in range(2):
            batch.key(index, key_of((number + index) % 12), expected_len=lib.LEN_ANY)
            batch.memory(index, (lib.c.c_char * 1000)())
        batches.append(batch)
        tickets.add(space.submit(lib.GET, batch, user_data=number))
    assert len(tickets) == 200
    one = tickets.pop()
    assert client.wait(one).ticket == one
    with pytest.raises(lib.Error):
        client.wait(one, 0)
    seen = set()
    while len(seen) < 199:
        ready, _, _ = select.select([client.event_fd()], [], [], 60)
        assert ready, f"no completion within 60 s; {len(seen)} seen"
        for done in client.reap():
            assert done.ticket in tickets and done.ticket not in seen and done.items_count == 2
            seen.add(done.ticket)
    assert client.reap() == []
    assert select.select([client.event_fd()], [], [], 0)[0] == []
    client.drain()


def test_cancel_and_close(any_url):
    """Cancelled or cut off by close: exactly one completion each, and nothing touches the memory afterwards."""
    client = lib.Client(any_url)
    space = client.space("cancel")
    batches, tickets = [], []
    for number in range(30):
        batch = lib.Batch(1)
        batch.key(0, key_of(number), expected_len=lib.LEN_ANY)
        batch.memory(0, lib._buffer(bytes(MIB)))
        batches.append(batch)
        tickets.append(space.submit(lib.PUT, batch))
    for ticket in tickets[::2]:
        assert client.cancel(ticket) in (0, -2)
    for ticket, batch in zip(tickets, batches):
        done = client.wait(ticket, 60000)
        assert done.items_count == 1
        if done.ok_count == 0:
            assert lib.REASONS[batch.items[0].reason] in ("cancelled", "busy")
    assert client.cancel(tickets[0]) == -2
    for batch in batches[:5]:
        space.submit(lib.GET, batch)
    client.close()
    frozen = [bytes(batch.buffers[0]) for batch in batches[:5]]
    assert frozen == [bytes(batch.buffers[0]) for batch in batches[:5]]


def test_misuse(space):
    """Bad arguments are errors and take nothing."""
    batch = lib.Batch(1)
    batch.key(0, b"k")
    batch.memory(0, lib._buffer(b"v"))
    library = lib.library()
    options = lib.submit_options()
    assert library.hr_submit(space.handle, 99, batch.items, 1, lib.c.byref(options)) == -22
    assert library.hr_submit(space.handle, lib.PUT, batch.items, 0, lib.c.byref(options)) == -22
    assert library.hr_submit(space.handle, lib.PUT, batch.items, 16385, lib.c.byref(options)) == -22
    options.ack = 2
    assert library.hr_submit(space.handle, lib.PUT, batch.items, 1, lib.c.byref(options)) == -errno.ENOTSUP, "nobody keeps copies"
    options.item_size = 8
    assert library.hr_submit(space.handle, lib.PUT, batch.items, 1, lib.c.byref(options)) == -22
    assert library.hr_submit(None, lib.PUT, batch.items, 1, None) < 0
    assert space.get(b"k") == (None, "absent")


def test_inflight_bound(any_url):
    """Beyond inflight_bytes_max a submission is refused as a whole and can be made later."""
    with lib.Client(any_url, inflight_bytes_max=4 * MIB) as client:
        space = client.space("bound")
        taken, refusals, batches = [], 0, []
        for number in range(40):
            batch = lib.Batch(1)
            batch.key(0, key_of(number))
            batch.memory(0, lib._buffer(bytes(MIB)))
            batches.append(batch)
            try:
                taken.append(space.submit(lib.PUT, batch))
            except lib.Error as error:
                assert error.code == -lib.ERRORS["EFULL"]
                refusals += 1
        assert refusals > 0 and len(taken) >= 3
        for ticket in taken:
            client.wait(ticket, 60000)
        space.run(lib.PUT, batches[-1])


@pytest.mark.slow
def test_many_threads(space):
    """Eight threads on one handle, each its own blocks and all of them common ones: no wrong byte."""
    failures = []

    def work(number):
        rng = random.Random(number)
        try:
            for turn in range(15):
                keys = [f"{rng.choice((number, 'common'))}/{rng.randrange(30)}".encode() for _ in range(8)]
                space.put_until_stored([(key, value_of(key, 20_000)) for key in set(keys)])
                found = look(space, keys, 20_000)
                assert set(found.values()) == {"none"}, (turn, found)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures and not any(thread.is_alive() for thread in threads), failures


def test_staged_get(space):
    value = value_of(b"staged", 5 * MIB)
    space.put_until_stored([(b"k", value)])
    got = space.get_batch([b"k"], len(value), item={"flags": lib.STAGED})
    assert got.items[0].status == lib.OK and got.value(0) == value


@pytest.mark.slow
def test_borrow(connect, work, start_daemon):
    """Borrowed pages hold the value until they are released, through replace and eviction."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"], dram="32MiB")
    space = connect(daemon.unix).space("borrow")
    value = value_of(b"borrow", 500_000)
    fill(space, [b"k"], 1)
    space.put_batch([(b"k", value)], item={"flags": lib.REPLACE})
    batch = lib.Batch(1)
    batch.key(0, b"k", flags=lib.BORROW, expected_len=lib.LEN_ANY)
    space.run(lib.GET, batch)
    item = batch.items[0]
    assert item.status == lib.OK and item.flags & lib.BORROWED and item.borrow != 0

    def pages():
        return b"".join(lib.c.string_at(item.borrowed[i].base, item.borrowed[i].len) for i in range(item.borrowed_count))

    assert pages() == value
    space.put_batch([(b"k", b"another")], item={"flags": lib.REPLACE})
    fill(space, [key_of(index) for index in range(800)], 100_000)
    assert pages() == value
    space.release(batch)
    assert not item.flags & lib.BORROWED
    space.client.drain()


def test_borrows_leave_room(connect, work, start_daemon):
    """Clients that borrow and do not give back hold half of the DRAM tier at most; beyond that a borrow is a copy, and others go on."""
    format_image(work / "image", 128 * MIB)
    daemon = start_daemon(work, [work / "image"], dram="32MiB")
    fill(connect(daemon.unix).space("borrow"), [key_of(index) for index in range(70)], MIB // 2)
    borrowed = []
    for client in range(5):
        space, batch = connect(daemon.unix).space("borrow"), lib.Batch(14)
        for index in range(14):
            batch.key(index, key_of(client * 14 + index), flags=lib.BORROW, expected_len=lib.LEN_ANY)
        space.run(lib.GET, batch)
        assert all(item.status == lib.OK and item.flags & lib.BORROWED for item in batch.items)
        borrowed.append((space, batch))
    assert 8 * MIB < daemon.metric("headrace_borrow_bytes") <= 16 * MIB
    assert daemon.metric("headrace_borrows_refused_total") > 0
    other = connect(daemon.tcp).space("others")
    fill(other, [key_of(index) for index in range(20)], MIB // 2)
    assert_all_there(other, [key_of(index) for index in range(20)], MIB // 2)
    for space, batch in borrowed:
        space.release(batch)
    wait_for("the borrows' end", lambda: daemon.metric("headrace_borrow_bytes") == 0)


def test_borrow_is_a_copy_elsewhere(connect, node):
    """Over TCP there are no pages to lend: the answer says so instead of failing in another way."""
    space = connect(node.tcp).space("no borrow")
    space.put(b"k", b"value")
    batch = lib.Batch(1)
    batch.key(0, b"k", flags=lib.BORROW, expected_len=lib.LEN_ANY)
    space.run(lib.GET, batch)
    item = batch.items[0]
    if item.status == lib.OK:
        assert b"".join(lib.c.string_at(item.borrowed[i].base, item.borrowed[i].len) for i in range(item.borrowed_count)) == b"value"
        space.release(batch)
    else:
        assert item.status == lib.INVALID


def test_registered_memory(space):
    """Registered memory is used like any other."""
    fd = os.memfd_create("registered", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8 * MIB)
    import fcntl
    import mmap
    fcntl.fcntl(fd, 1033, 2)
    with mmap.mmap(fd, 8 * MIB) as memory:
        view = (lib.c.c_char * (8 * MIB)).from_buffer(memory)
        base = lib.c.addressof(view)
        assert lib.library().hr_register(space.client.handle, base, 8 * MIB, fd) == 0
        value = value_of(b"registered", 3 * MIB)
        view[:len(value)] = value
        batch = lib.Batch(1)
        batch.key(0, b"k")
        iov = (lib.Iovec * 1)()
        iov[0].base, iov[0].len = base, len(value)
        batch.items[0].iov, batch.items[0].iov_count = iov, 1
        space.run(lib.PUT, batch)
        assert batch.items[0].status == lib.OK
        iov[0].base = base + 4 * MIB
        batch.items[0].expected_len = len(value)
        space.run(lib.GET, batch)
        assert batch.items[0].status == lib.OK and view[4 * MIB:4 * MIB + len(value)] == value
        assert lib.library().hr_unregister(space.client.handle, base) == 0
        del view
    os.close(fd)


def test_fork(space):
    """The child's calls on the parent's handle answer -HR_EFORK and touch nothing; a handle of its own works; the parent goes on."""
    assert space.put(b"k", b"v") == "none"
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            buffer, length = lib.c.create_string_buffer(10), lib.c.c_size_t()
            code = -lib.library().hr_get(space.handle, b"k", 1, buffer, 10, lib.c.byref(length), None) - lib.ERRORS["EFORK"]
            if code == 0:
                code = 1 if lib.library().hr_event_fd(space.client.handle) >= 0 else 0
        finally:
            os._exit(code & 0xFF)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert space.get(b"k") == (b"v", "none")


def test_node_away_is_a_fast_miss(connect):
    """Nobody there: a miss (owner down), at once, not a stall; a thousand of them in the time of a watchdog."""
    space = connect("tcp:127.0.0.1:9", ready_ms=None).space("away")
    assert space.get(b"k")[1] in ("owner_down", "deadline")
    started = time.monotonic()
    for _ in range(1000):
        assert space.get(b"k")[1] in ("owner_down", "deadline")
    assert time.monotonic() - started < 20


def test_reconnects_by_itself(connect, work, start_daemon):
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"])
    space = connect(daemon.tcp).space("again")
    fill(space, [b"k"], 1000)
    daemon.kill()
    wait_for("the miss", lambda: space.get(b"k")[1] in ("owner_down", "deadline"))
    daemon.start()
    wait_for("it is back", lambda: space.get(b"k")[1] == "none")


def test_deadline(connect):
    """A deadline ends a request to a node that accepts and never answers."""
    import socket
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        space = connect(f"tcp:127.0.0.1:{mute.getsockname()[1]}", ready_ms=None).space("mute")
        started = time.monotonic()
        assert space.get(b"k", deadline_us=200_000)[1] in ("deadline", "owner_down")
        assert time.monotonic() - started < 20 * 0.2 + 1


def test_two_urls_of_one_node(connect, node):
    """tcp:HOST:PORT,HOST:PORT with one that is away: the other serves."""
    space = connect(f"tcp:127.0.0.1:9,127.0.0.1:{node.tcp_port}").space("list of hosts")
    assert space.put(b"k", b"v") == "none" and space.get(b"k") == (b"v", "none")


def test_stat(space):
    assert isinstance(space.client.stat(), dict)
    assert space.client.detail() == "" or "\n" not in space.client.detail()


def test_file_is_shared(work):
    """Two processes' worth of handles on one file: URL see each other's blocks; the second reaches the first's store."""
    url = f"file:{work}/image?size=64MiB&dram=16MiB"
    with lib.Client(url) as host:
        with lib.Client(url) as guest:
            host.space("shared").put(b"from host", b"1")
            assert guest.space("shared").get(b"from host") == (b"1", "none")
            guest.space("shared").put(b"from guest", b"2")
            assert host.space("shared").get(b"from guest") == (b"2", "none")
    with lib.Client(url) as client:
        assert client.space("shared").get(b"from host") == (b"1", "none")
