"""What the library says of identities, against an independent implementation (wire.py, from docs/format/identity.md)."""
import random

import libheadrace
import pytest
import wire

@pytest.fixture
def client(connect):
    # Nothing listens there: identities need no store.
    return connect("tcp:127.0.0.1:9", ready_ms=None)


@pytest.mark.parametrize("seed", range(20))
def test_library_agrees(client, seed):
    """Random spaces and keys, in any order of the pairs."""
    rng = random.Random(seed)
    pairs = {f"name{i}{rng.randrange(1000)}": rng.randbytes(rng.randrange(100)) for i in range(rng.randint(1, 12))}
    shuffled = list(pairs.items())
    rng.shuffle(shuffled)
    space = client.space(pairs=shuffled)
    digest = wire.space_digest({name.encode(): value for name, value in pairs.items()})
    assert space.digest() == digest
    for length in (1, 63, 64, 65, 1024, rng.randint(1, 1024)):
        key = rng.randbytes(length)
        assert space.block_id(key) == wire.block_id(digest, key)
        assert libheadrace.library().hr_route_of_id(space.block_id(key)) == wire.route_of(space.block_id(key))


def test_space_by_name_and_by_digest(client):
    digest = wire.space_digest({b"name": b"chat"})
    assert client.space("chat").digest() == digest
    assert client.space(f"sha256:{digest.hex()}").digest() == digest
    assert client.space(digest=digest, label="chat").digest() == digest


@pytest.mark.parametrize("pairs", [[], [("a", b"1"), ("a", b"2")], [("", b"1")]])
def test_unusable_pairs(client, pairs):
    with pytest.raises(libheadrace.Error) as failure:
        client.space(pairs=pairs)
    assert failure.value.code == -22


def test_unusable_key(client):
    space = client.space("chat")
    for key in (b"", b"k" * 1025):
        with pytest.raises(libheadrace.Error):
            space.block_id(key)
