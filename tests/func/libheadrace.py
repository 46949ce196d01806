"""libheadrace through ctypes, for the tests: the structs of include/headrace/*.h and thin objects over the calls.

Independent of python/headrace: a wrong struct there must not hide a wrong struct here. test_library.py compares the sizes with a C program.
"""
import ctypes as c
import json
import os
import time
from pathlib import Path

BUILD = Path(os.environ.get("HEADRACE_BUILD") or Path(__file__).resolve().parents[2] / "build")

PUT, GET, EXISTS, TOUCH, DELETE, PREFETCH = 1, 2, 3, 4, 5, 6
OK, MISS, REFUSED, INVALID = 0, 1, 2, 3
ROUTE, ALL_SHARDS, REPLACE, PINNED, STAGED, BORROW = (1 << bit for bit in range(6))
TOUCHED, DUPLICATE, DIFFERS, LEASED, DRAM, FLASH, BORROWED = (1 << bit for bit in range(16, 23))
RAM, STABLE = 0, 1
REASONS = ["none", "absent", "evicted", "expired", "deleted", "quota", "deadline", "corrupt", "size_mismatch", "owner_down", "busy",
           "cancelled"]
LEN_ANY = (1 << 64) - 1
KEY_BYTES_MAX, BLOCK_BYTES_MAX, BATCH_ITEMS_MAX = 1024, 128 << 20, 16384
ERRORS = {"ECORRUPT": 1001, "EFOREIGN": 1002, "EVERSION": 1003, "EPROTO": 1004, "EFORK": 1005, "EGONE": 1006, "EFULL": 1007,
          "EINUSE": 1008, "EAUTH": 1009, "ECONFIG": 1010, "ESIZE": 1011, "EURL": 1012, "EDOWN": 1013}


class Options(c.Structure):
    _fields_ = [("size", c.c_size_t), ("connect_timeout_ms", c.c_uint32), ("deadline_ms", c.c_uint32),
                ("inflight_bytes_max", c.c_uint64), ("inflight_items_max", c.c_uint32), ("token_file", c.c_char_p),
                ("name", c.c_char_p), ("staging_bytes", c.c_uint64), ("reserve", c.c_uint64 * 8)]


class Iovec(c.Structure):
    _fields_ = [("base", c.c_void_p), ("len", c.c_size_t)]


class Item(c.Structure):
    _fields_ = [("key", c.c_void_p), ("key_len", c.c_uint32), ("flags", c.c_uint32), ("route", c.c_uint64), ("iov", c.POINTER(Iovec)),
                ("iov_count", c.c_uint32), ("position", c.c_uint32), ("object_off", c.c_uint64), ("expected_len", c.c_uint64),
                ("parent", c.c_void_p), ("ttl_ms", c.c_uint32), ("cost_hint_us", c.c_uint32), ("class_hint", c.c_uint8),
                ("pad", c.c_uint8 * 3), ("status", c.c_uint32), ("reason", c.c_uint32), ("len", c.c_uint64), ("bytes", c.c_uint64),
                ("borrowed", c.POINTER(Iovec)), ("borrowed_count", c.c_uint32), ("pad2", c.c_uint32), ("borrow", c.c_uint64),
                ("reserve", c.c_uint64 * 4)]


class SubmitOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("item_size", c.c_size_t), ("user_data", c.c_uint64), ("deadline_us", c.c_uint32),
                ("lease_ms", c.c_uint32), ("priority", c.c_uint8), ("ack", c.c_uint8), ("pad", c.c_uint8 * 6),
                ("reserve", c.c_uint64 * 4)]


class Completion(c.Structure):
    _fields_ = [("ticket", c.c_int64), ("user_data", c.c_uint64), ("items_count", c.c_uint32), ("ok_count", c.c_uint32),
                ("prefix_count", c.c_uint32), ("cancelled", c.c_uint32)]


class Pair(c.Structure):
    _fields_ = [("name", c.c_char_p), ("value", c.c_char_p), ("value_len", c.c_size_t)]


class SpaceInfo(c.Structure):
    _fields_ = [("digest", c.c_uint8 * 32), ("label", c.c_char * 64), ("blocks", c.c_uint64), ("bytes", c.c_uint64),
                ("quota_bytes", c.c_uint64), ("pin_budget_bytes", c.c_uint64), ("pinned_bytes", c.c_uint64),
                ("generation_max", c.c_uint64), ("gets", c.c_uint64), ("hits", c.c_uint64), ("puts", c.c_uint64)]


class ListEntry(c.Structure):
    _fields_ = [("id", c.c_uint8 * 16), ("parent", c.c_uint8 * 16), ("route", c.c_uint64), ("bytes", c.c_uint64),
                ("expiry_ms", c.c_uint64), ("position", c.c_uint32), ("key_len", c.c_uint16), ("key", c.c_void_p)]


class FormatOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("size_bytes", c.c_uint64), ("segment_bytes", c.c_uint64), ("shards_count", c.c_uint32),
                ("force", c.c_uint32), ("progress_done", c.c_void_p), ("progress_total", c.c_void_p), ("reserve", c.c_uint64 * 4)]


class CheckOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("skip_payload", c.c_uint32), ("findings_max", c.c_uint32), ("progress_done", c.c_void_p),
                ("progress_total", c.c_void_p), ("reserve", c.c_uint64 * 4)]


STRUCTS = {"hr_options": Options, "hr_item": Item, "hr_submit_options": SubmitOptions, "hr_completion": Completion, "hr_pair": Pair,
           "hr_space_info": SpaceInfo, "hr_list_entry": ListEntry, "hr_format_options": FormatOptions, "hr_check_options": CheckOptions}

_CALLS = {
    "hr_options_init": (None, [c.POINTER(Options)]),
    "hr_open": (c.c_int, [c.c_char_p, c.POINTER(Options), c.POINTER(c.c_void_p), c.c_char_p]),
    "hr_client_ready": (c.c_int, [c.c_void_p, c.c_uint32]),
    "hr_close": (None, [c.c_void_p]),
    "hr_client_detail": (None, [c.c_void_p, c.c_char_p, c.c_size_t]),
    "hr_register": (c.c_int, [c.c_void_p, c.c_void_p, c.c_size_t, c.c_int]),
    "hr_unregister": (c.c_int, [c.c_void_p, c.c_void_p]),
    "hr_stat_json": (c.c_int, [c.c_void_p, c.c_uint32, c.POINTER(c.c_void_p)]),
    "hr_version": (c.c_char_p, []),
    "hr_strerror": (c.c_char_p, [c.c_int]),
    "hr_reason_name": (c.c_char_p, [c.c_int]),
    "hr_space_open": (c.c_int, [c.c_void_p, c.POINTER(Pair), c.c_size_t, c.POINTER(c.c_void_p)]),
    "hr_space_open_name": (c.c_int, [c.c_void_p, c.c_char_p, c.POINTER(c.c_void_p)]),
    "hr_space_open_digest": (c.c_int, [c.c_void_p, c.c_char_p, c.c_char_p, c.POINTER(c.c_void_p)]),
    "hr_space_close": (None, [c.c_void_p]),
    "hr_space_digest": (None, [c.c_void_p, c.c_char_p]),
    "hr_block_id": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.c_char_p]),
    "hr_route_of_id": (c.c_uint64, [c.c_char_p]),
    "hr_space_list": (c.c_int, [c.c_void_p, c.c_uint32, c.POINTER(c.c_void_p), c.POINTER(c.c_size_t)]),
    "hr_space_usage": (c.c_int, [c.c_void_p, c.c_uint32, c.POINTER(SpaceInfo)]),
    "hr_space_drop": (c.c_int, [c.c_void_p, c.c_uint32]),
    "hr_space_set": (c.c_int, [c.c_void_p, c.c_uint64, c.c_uint64, c.c_uint32]),
    "hr_list": (c.c_int, [c.c_void_p, c.POINTER(c.c_void_p), c.c_uint32, c.c_uint32, c.POINTER(c.c_void_p), c.POINTER(c.c_size_t)]),
    "hr_list_cursor_free": (None, [c.c_void_p]),
    "hr_submit_options_init": (None, [c.POINTER(SubmitOptions)]),
    "hr_submit": (c.c_int64, [c.c_void_p, c.c_int, c.POINTER(Item), c.c_uint32, c.POINTER(SubmitOptions)]),
    "hr_event_fd": (c.c_int, [c.c_void_p]),
    "hr_reap": (c.c_int, [c.c_void_p, c.POINTER(Completion), c.c_uint32]),
    "hr_wait": (c.c_int, [c.c_void_p, c.c_int64, c.c_uint32, c.POINTER(Completion)]),
    "hr_cancel": (c.c_int, [c.c_void_p, c.c_int64]),
    "hr_drain": (c.c_int, [c.c_void_p, c.c_uint32]),
    "hr_release": (c.c_int, [c.c_void_p, c.POINTER(Item), c.c_uint32]),
    "hr_put": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.c_char_p, c.c_size_t, c.POINTER(SubmitOptions)]),
    "hr_get": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.c_void_p, c.c_size_t, c.POINTER(c.c_size_t), c.POINTER(SubmitOptions)]),
    "hr_exists": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.POINTER(c.c_uint64), c.POINTER(SubmitOptions)]),
    "hr_delete": (c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.POINTER(SubmitOptions)]),
    "hr_format_options_init": (None, [c.POINTER(FormatOptions)]),
    "hr_format": (c.c_int, [c.c_char_p, c.POINTER(FormatOptions), c.c_char_p]),
    "hr_check_options_init": (None, [c.POINTER(CheckOptions)]),
    "hr_check": (c.c_int, [c.c_char_p, c.POINTER(CheckOptions), c.POINTER(c.c_void_p), c.c_char_p]),
}
_library = None


def library():
    global _library
    if _library is None:
        loaded = c.CDLL(str(BUILD / "libheadrace.so"), use_errno=True)
        for name, (result, arguments) in _CALLS.items():
            call = getattr(loaded, name)
            call.restype, call.argtypes = result, arguments
        _library = loaded
    return _library


_libc_free = c.CDLL(None).free
_libc_free.argtypes = [c.c_void_p]


class Error(Exception):
    def __init__(self, code, detail=""):
        super().__init__(f"{library().hr_strerror(code).decode()} ({code}) {detail}")
        self.code, self.detail = code, detail


def _checked(code, detail=""):
    if code < 0:
        raise Error(code, detail)
    return code


def submit_options(**fields):
    options = SubmitOptions()
    library().hr_submit_options_init(c.byref(options))
    for name, value in fields.items():
        if not hasattr(options, name):
            raise TypeError(name)
        setattr(options, name, value)
    return options


class Client:
    def __init__(self, url, ready_ms=20000, **fields):
        options = Options()
        library().hr_options_init(c.byref(options))
        options.deadline_ms = 20000  # A test waits for the answer; a deadline is set where it is what is tested.
        for name, value in fields.items():
            if not hasattr(options, name):
                raise TypeError(name)
            setattr(options, name, value)
        self.handle, detail = c.c_void_p(), c.create_string_buffer(256)
        code = library().hr_open(None if url is None else url.encode(), c.byref(options), c.byref(self.handle), detail)
        _checked(code, detail.value.decode())
        if ready_ms is not None:
            try:
                _checked(library().hr_client_ready(self.handle, ready_ms), self.detail())
            except Error:
                self.close()
                raise

    def close(self):
        if self.handle:
            library().hr_close(self.handle)
            self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def detail(self):
        text = c.create_string_buffer(256)
        library().hr_client_detail(self.handle, text, 256)
        return text.value.decode()

    def space(self, name="default", *, pairs=None, digest=None, label=None):
        return Space(self, name, pairs, digest, label)

    def stat(self, timeout_ms=20000):
        text = c.c_void_p()
        _checked(library().hr_stat_json(self.handle, timeout_ms, c.byref(text)))
        try:
            return json.loads(c.string_at(text))
        finally:
            _libc_free(text)

    def spaces(self, timeout_ms=20000):
        infos, count = c.c_void_p(), c.c_size_t()
        _checked(library().hr_space_list(self.handle, timeout_ms, c.byref(infos), c.byref(count)))
        array = c.cast(infos, c.POINTER(SpaceInfo))
        found = [SpaceInfo.from_buffer_copy(array[i]) for i in range(count.value)]
        _libc_free(infos)
        return found

    def reap(self, most=64):
        completions = (Completion * most)()
        count = _checked(library().hr_reap(self.handle, completions, most))
        return [Completion.from_buffer_copy(completions[i]) for i in range(count)]

    def wait(self, ticket, timeout_ms=20000):
        completion = Completion()
        _checked(library().hr_wait(self.handle, ticket, timeout_ms, c.byref(completion)))
        return completion

    def cancel(self, ticket):
        return library().hr_cancel(self.handle, ticket)

    def drain(self, timeout_ms=20000):
        _checked(library().hr_drain(self.handle, timeout_ms))

    def event_fd(self):
        return library().hr_event_fd(self.handle)


class Batch:
    """Items of one submission and the memory they point to, kept alive together."""

    def __init__(self, count):
        self.items = (Item * count)()
        self.count = count
        self.kept = []
        self.buffers = [None] * count

    def key(self, index, key, **fields):
        memory = c.create_string_buffer(key, max(len(key), 1))
        self.kept.append(memory)
        item = self.items[index]
        item.key, item.key_len = c.cast(memory, c.c_void_p), len(key)
        for name, value in fields.items():
            if name == "parent" and value is not None:
                memory = c.create_string_buffer(value, 16)
                self.kept.append(memory)
                value = c.cast(memory, c.c_void_p)
            elif not hasattr(item, name):
                raise TypeError(name)
            setattr(item, name, value)
        return item

    def memory(self, index, *buffers):
        iov = (Iovec * len(buffers))()
        for slot, buffer in zip(iov, buffers):
            slot.base, slot.len = c.addressof(buffer), c.sizeof(buffer)
        self.kept += [iov, *buffers]
        self.items[index].iov, self.items[index].iov_count = iov, len(buffers)
        self.buffers[index] = buffers[0] if len(buffers) == 1 else buffers

    def value(self, index):
        """What a GET put there."""
        item = self.items[index]
        return bytes(self.buffers[index])[:item.bytes]


def _buffer(data):
    return (c.c_char * len(data)).from_buffer_copy(data) if data else (c.c_char * 0)()


class Space:
    def __init__(self, client, name, pairs=None, digest=None, label=None):
        self.client, self.handle = client, c.c_void_p()
        if pairs is not None:
            array = (Pair * len(pairs))(*[Pair(key.encode(), value, len(value)) for key, value in pairs])
            code = library().hr_space_open(client.handle, array, len(pairs), c.byref(self.handle))
        elif digest is not None:
            code = library().hr_space_open_digest(client.handle, digest, label and label.encode(), c.byref(self.handle))
        else:
            code = library().hr_space_open_name(client.handle, name.encode(), c.byref(self.handle))
        _checked(code)

    def close(self):
        library().hr_space_close(self.handle)
        self.handle = None

    def digest(self):
        out = c.create_string_buffer(32)
        library().hr_space_digest(self.handle, out)
        return out.raw

    def block_id(self, key):
        out = c.create_string_buffer(16)
        _checked(library().hr_block_id(self.handle, key, len(key), out))
        return out.raw

    def submit(self, op, batch, **fields):
        options = submit_options(**fields)
        return _checked(library().hr_submit(self.handle, op, batch.items, batch.count, c.byref(options)))

    def run(self, op, batch, **fields):
        return self.client.wait(self.submit(op, batch, **fields), 60000)

    # One block at a time -------------------------------------------------------------------------------------------------------
    def put(self, key, value, **fields):
        """"none" when stored, else the reason."""
        return REASONS[_checked(library().hr_put(self.handle, key, len(key), value, len(value), c.byref(submit_options(**fields))),
                                self.client.detail())]

    def get(self, key, room=None, **fields):
        """-> (value, "none") or (None, reason)."""
        room = 1 << 16 if room is None else room
        buffer, length = c.create_string_buffer(max(room, 1)), c.c_size_t()
        code = _checked(library().hr_get(self.handle, key, len(key), buffer, room, c.byref(length), c.byref(submit_options(**fields))))
        return (None, REASONS[code]) if code else (buffer.raw[:length.value], "none")

    def exists(self, key, **fields):
        length = c.c_uint64()
        code = _checked(library().hr_exists(self.handle, key, len(key), c.byref(length), c.byref(submit_options(**fields))))
        return (None, REASONS[code]) if code else (length.value, "none")

    def delete(self, key, **fields):
        return REASONS[_checked(library().hr_delete(self.handle, key, len(key), c.byref(submit_options(**fields))))]

    # Batches -----------------------------------------------------------------------------------------------------------------
    def put_batch(self, pairs, item=None, **fields):
        batch = Batch(len(pairs))
        for index, (key, value) in enumerate(pairs):
            batch.key(index, key, **(item or {}))
            batch.memory(index, _buffer(value))
        self.run(PUT, batch, **fields)
        return batch

    def get_batch(self, keys, room, item=None, **fields):
        """`room`: bytes of each value. expected_len is LEN_ANY unless `item` says otherwise."""
        batch = Batch(len(keys))
        for index, key in enumerate(keys):
            batch.key(index, key, **({"expected_len": LEN_ANY} | (item or {})))
            batch.memory(index, (c.c_char * room)())
        self.run(GET, batch, **fields)
        return batch

    def key_batch(self, op, keys, item=None, **fields):
        batch = Batch(len(keys))
        for index, key in enumerate(keys):
            batch.key(index, key, **(item or {}))
        batch.completion = self.run(op, batch, **fields)
        return batch

    def release(self, batch):
        _checked(library().hr_release(self.handle, batch.items, batch.count))

    def put_until_stored(self, pairs, seconds=60, **fields):
        """PUTs, again while they are busy."""
        until = time.monotonic() + seconds
        while pairs:
            batch = self.put_batch(pairs, **fields)
            left = []
            for pair, item in zip(pairs, batch.items):
                if item.status != OK:
                    assert REASONS[item.reason] == "busy" and time.monotonic() < until, (pair[0], item.status, REASONS[item.reason])
                    left.append(pair)
            pairs = left

    # The space itself ---------------------------------------------------------------------------------------------------------
    def usage(self, timeout_ms=20000):
        info = SpaceInfo()
        _checked(library().hr_space_usage(self.handle, timeout_ms, c.byref(info)))
        return info

    def drop(self, timeout_ms=20000):
        _checked(library().hr_space_drop(self.handle, timeout_ms))

    def set(self, quota=LEN_ANY, pin_budget=LEN_ANY, timeout_ms=20000):
        _checked(library().hr_space_set(self.handle, quota, pin_budget, timeout_ms))

    def list(self, page=100, timeout_ms=20000):
        """-> {key: ListEntry}"""
        cursor, found = c.c_void_p(), {}
        while True:
            entries, count = c.c_void_p(), c.c_size_t()
            _checked(library().hr_list(self.handle, c.byref(cursor), page, timeout_ms, c.byref(entries), c.byref(count)))
            array = c.cast(entries, c.POINTER(ListEntry))
            for index in range(count.value):
                entry = ListEntry.from_buffer_copy(array[index])
                found[c.string_at(entry.key, entry.key_len)] = entry
            if entries:
                _libc_free(entries)
            if count.value == 0:
                library().hr_list_cursor_free(cursor)
                return found


def format_image(path, size_bytes, segment_bytes=0, shards=1, force=False):
    options, detail = FormatOptions(), c.create_string_buffer(256)
    library().hr_format_options_init(c.byref(options))
    options.size_bytes, options.segment_bytes, options.shards_count, options.force = size_bytes, segment_bytes, shards, force
    _checked(library().hr_format(str(path).encode(), c.byref(options), detail), detail.value.decode())


def check_image(path, findings_max=1000):
    options, detail, text = CheckOptions(), c.create_string_buffer(256), c.c_void_p()
    library().hr_check_options_init(c.byref(options))
    options.findings_max = findings_max
    _checked(library().hr_check(str(path).encode(), c.byref(options), c.byref(text), detail), detail.value.decode())
    try:
        return json.loads(c.string_at(text))
    finally:
        _libc_free(text)
