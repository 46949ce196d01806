"""A short round through a store that runs already (HEADRACE_TEST_URL), or through a daemon of our own: put, get, list, delete, replay."""
import kvt
import libheadrace as lib
import simulate
from blocks import assert_all_there, fill, key_of, look
from harness import cli_json


def test_round(store_url, connect, tmp_path):
    import secrets
    name = f"attach {secrets.token_hex(6)}"
    space = connect(store_url).space(name)
    keys = [key_of(index) for index in range(40)]
    try:
        fill(space, keys, 30_000)
        assert_all_there(space, keys, 30_000)
        assert set(space.list()) == set(keys)
        batch = space.key_batch(lib.DELETE, keys[:10])
        assert all(item.status == lib.OK for item in batch.items)
        found = look(space, keys, 30_000)
        assert [found[key] == "none" for key in keys] == [False] * 10 + [True] * 30
        trace = kvt.generate(3, 60)
        kvt.write(trace, tmp_path / "trace.kvt")
        report = cli_json("replay", tmp_path / "trace.kvt", "--url", store_url, "--block-bytes", "4KiB", "--space", f"{name} replay", "--json")
        assert (report["usable_prefix_hits"], report["wrong_bytes"]) == (simulate.infinite(trace).prefix_hits, 0)
        space.client.space(f"{name} replay").drop()
    finally:
        space.drop()
