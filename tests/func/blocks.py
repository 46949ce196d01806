"""Keys and values that check themselves: what is under a key follows from the key, so a wrong byte is seen wherever it comes from."""
import functools
import random

import libheadrace as lib


@functools.lru_cache(maxsize=500)
def value_of(key, length):
    """The same bytes for the same key and length, everywhere and always."""
    return random.Random(key + length.to_bytes(8, "little")).randbytes(length)


def key_of(index, prefix="block"):
    return f"{prefix}/{index}".encode()


def fill(space, keys, length, ack=lib.STABLE, batch=64):
    """PUTs value_of(key, length) for each key; every one is acknowledged when this returns."""
    keys = list(keys)
    for at in range(0, len(keys), batch):
        space.put_until_stored([(key, value_of(key, length)) for key in keys[at:at + batch]], ack=ack)


def look(space, keys, length, batch=64):
    """GETs all keys: -> {key: "none" or the reason of its miss}. An OK with a wrong byte is an assertion here and now."""
    keys, found = list(keys), {}
    for at in range(0, len(keys), batch):
        some = keys[at:at + batch]
        got = space.get_batch(some, length)
        for index, key in enumerate(some):
            item = got.items[index]
            if item.status == lib.OK:
                assert item.len == length and got.value(index) == value_of(key, length), f"wrong bytes under {key}"
                found[key] = "none"
            else:
                assert item.status == lib.MISS, (key, item.status)
                found[key] = lib.REASONS[item.reason]
    return found


def assert_all_there(space, keys, length):
    missing = {key: reason for key, reason in look(space, keys, length).items() if reason != "none"}
    assert not missing, f"{len(missing)} of {len(list(keys))} blocks are not there: {dict(list(missing.items())[:5])}"
