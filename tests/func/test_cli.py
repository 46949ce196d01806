"""The command line as others script against it: every line of the contract, exit codes, --help, JSON, completion."""
import json
import os
import re
import shutil
import subprocess

import pytest
import wire
from blocks import value_of
from harness import KIB, MIB, check_json, cli, cli_json, cli_ok, environment, format_image, program

COMMANDS = ["format", "put", "get", "exists", "rm", "ls", "space", "stat", "check", "bench", "replay", "plan", "completion", "version"]
OK, ABSENT, USAGE, UNREACHED, DAMAGED, REFUSED = range(6)


# -- help, usage, completion ---------------------------------------------------------------------------------------------------

def test_help_lists_every_command():
    for args in ((), ("--help",), ("help",)):
        done = cli(*args, text=True)
        text = done.stdout + done.stderr
        assert done.returncode == (USAGE if args == () else OK)
        for command in COMMANDS:
            assert re.search(rf"^\s+{command}\b", text, re.MULTILINE), (args, command)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_command(command):
    """--help goes to standard output, says how it is used, its options and its exit codes."""
    done = cli_ok(command, "--help", text=True)
    assert f"headrace {command}" in done.stdout and done.stderr == ""
    assert "xit" in done.stdout, "exit codes are in every --help"
    if command in ("put", "bench", "replay"):
        assert re.search(r"--ack\b.*\bram\b", done.stdout, re.DOTALL), "the default acknowledgement is in --help"


def test_version():
    assert re.fullmatch(r"headrace \d+\.\d+\.\d+\b.*\n", cli_ok("version", text=True).stdout)
    assert cli_ok("--version", text=True).stdout == cli_ok("version", text=True).stdout


@pytest.mark.parametrize("args, expected", [
    (["frmat"], "format"),
    (["put", "--spcae", "x", "key"], "--space"),
    (["bench", "--op", "gett"], "get"),
    (["bench", "--size", "1XiB"], "1XiB"),
    (["bench", "--depth", "many"], "many"),
    (["bench", "--depth"], "--depth"),
    (["put", "--route", "xyz", "key"], "xyz"),
    (["put"], "KEY"),
    (["put", "a", "b", "c"], "c"),
    (["format"], "PATH"),
    (["format", "x", "--size", "-1GiB"], "-1GiB"),
    (["replay", "--generate", "chat", "--block-bytes", "0"], "at least 1B"),
    (["replay", "--generate", "chat", "--block-bytes", "129MiB"], "at most 128MiB"),
    (["replay", "--generate", "chat", "--requests", "0"], "at least 1"),
    (["put", "--ack", "replicated", "k"], "ram|stable"),
    (["plan", "--tp", "0"], "at least 1"),
    (["plan", "--bytes-per-token", "0"], "at least 1"),
    (["check", "x", "--findings", "0"], "at least 1"),
])
def test_usage_errors(args, expected):
    """Exit code 2, one line that names the thing, nothing on standard output."""
    done = cli(*args, text=True, url="tcp:127.0.0.1:9")
    assert done.returncode == USAGE and expected in done.stderr, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    text = cli_ok("completion", shell, text=True).stdout
    for word in (*COMMANDS, "block-bytes"):
        assert word in text, (shell, word)
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to try the script in")
    assert subprocess.run([shell, "-n"], input=text.encode(), capture_output=True, check=False).returncode == 0
    if shell == "bash":
        script = text + '\nCOMP_WORDS=(headrace re); COMP_CWORD=1; '
        script += 'f=$(complete -p headrace | sed -E "s/.*-F ([^ ]+).*/\\1/"); $f headrace re headrace; echo "${COMPREPLY[*]}"'
        assert subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.split() == [b"replay"]


def test_no_store():
    """Who is not there is named; exit code 3; within the time of a watchdog."""
    for args in (["get", "key"], ["put", "key"], ["exists", "key"], ["stat", "--json"], ["ls"]):
        done = cli(*args, "--url", "tcp:127.0.0.1:9", "--timeout", "500ms", input=b"", text=True)
        assert done.returncode == UNREACHED and "127.0.0.1:9" in done.stderr, (args, done.stderr)
    done = cli("get", "key", text=True)
    assert done.returncode == USAGE and "HEADRACE_URL" in done.stderr
    done = cli("get", "key", "--url", "carrier-pigeon:coop", text=True)
    assert done.returncode == USAGE and "carrier-pigeon" in done.stderr


# -- put, get, exists, rm, ls ----------------------------------------------------------------------------------------------------

def test_put_get(work, any_url):
    """FILE or standard input in, FILE or standard output out, the same bytes; a miss is exit code 1 and leaves nothing."""
    for number, length in enumerate((0, 1, 100_000, 9 * MIB + 17)):
        value = value_of(b"cli", length)
        (work / "in").write_bytes(value)
        cli_ok("put", f"file{number}", work / "in", "--url", any_url)
        cli_ok("put", f"stdin{number}", "--url", any_url, input=value)
        assert cli_ok("get", f"stdin{number}", "--url", any_url).stdout == value
        cli_ok("get", f"file{number}", work / "out", "--url", any_url)
        assert (work / "out").read_bytes() == value
    done = cli("get", "nothing", work / "absent", "--url", any_url, text=True)
    assert done.returncode == ABSENT and "absent" in done.stderr and "nothing" in done.stderr
    assert not (work / "absent").exists() and done.stdout == ""


def test_environment_names_the_store(any_url):
    cli_ok("put", "k", input=b"v", url=any_url)
    assert cli_ok("get", "k", url=any_url).stdout == b"v"


def test_exists_rm_ls(any_url):
    for key in ("a", "b/1", "b/2"):
        cli_ok("put", key, "--url", any_url, input=key.encode() * 10)
    assert cli("exists", "a", "--url", any_url).returncode == OK
    assert cli("exists", "zz", "--url", any_url).returncode == ABSENT
    listed = cli_ok("ls", "--url", any_url, text=True).stdout
    for key in ("a", "b/1", "b/2"):
        assert re.search(rf"\b{re.escape(key)}\b", listed), listed
    cli_ok("rm", "b/1", "--url", any_url)
    assert cli("exists", "b/1", "--url", any_url).returncode == ABSENT
    assert cli("rm", "b/1", "--url", any_url).returncode == ABSENT
    done = cli("get", "b/1", "--url", any_url, text=True)
    # Why is remembered in memory: with file: each command is a store of its own, which forgets it.
    assert done.returncode == ABSENT and ("absent" if any_url.startswith("file:") else "deleted") in done.stderr
    assert "b/1" not in cli_ok("ls", "--url", any_url, text=True).stdout


def test_routes(node):
    """With a route one shard is asked; without, all are; rm without a route removes on all."""
    url = node.tcp
    for number in range(16):
        cli_ok("put", f"routed{number}", "--route", f"{number * 0x1234567890abcdef & (1 << 64) - 1:x}", "--url", url, input=b"x")
    for number in range(16):
        assert cli_ok("get", f"routed{number}", "--url", url).stdout == b"x"
        cli_ok("rm", f"routed{number}", "--url", url)
        assert cli("exists", f"routed{number}", "--url", url).returncode == ABSENT
    cli_ok("put", "twice", "--route", "1", "--url", url, input=b"one")
    assert cli_ok("get", "twice", "--route", "1", "--url", url).stdout == b"one"


@pytest.mark.parametrize("key_len, code", [(0, USAGE), (1, OK), (1024, OK), (1025, USAGE)])
def test_key_lengths(any_url, key_len, code):
    done = cli("put", "k" * key_len, "--url", any_url, input=b"v", text=True)
    assert done.returncode == code, done.stderr
    if code == USAGE:
        assert "1024" in done.stderr or "1,024" in done.stderr, "the value wanted is named"


def test_odd_keys(node):
    """Whatever bytes a key has, ls names it so that it can be read, and --json so that it can be used again; no terminal is told anything."""
    url = node.tcp
    keys = [b'a"b', b"back\\slash", b"nl\nx", b"\x1b[31mred", b"\x7f", "schlüssel".encode(), "😀".encode(), b"\xff\xfe", b"\xc3", b"x\xed\xa0\x80",
            b"\xc2\x85", b"-dash", b" space "]
    for key in keys:
        cli_ok("put", "--url", url, "--space", "odd keys", "--", os.fsdecode(key), input=b"v")
    entries = cli_json("ls", "--url", url, "--space", "odd keys", "--json")
    assert {bytes.fromhex(one["key_hex"]) if "key_hex" in one else one["key"].encode() for one in entries} == set(keys)
    assert "schlüssel" in {one["key"] for one in entries}
    listed = cli_ok("ls", "--url", url, "--space", "odd keys", text=True).stdout
    assert len(listed.splitlines()) == len(keys) and all(char == "\n" or char.isprintable() for char in listed), listed


def test_rm_of_several(node):
    """Each key that was not there is told; the others are removed."""
    for key in ("r1", "r2"):
        cli_ok("put", key, "--url", node.tcp, input=b"v")
    done = cli("rm", "no1", "r1", "no2", "r2", "--url", node.tcp, text=True)
    assert done.returncode == ABSENT and "no1" in done.stderr and "no2" in done.stderr and len(done.stderr.splitlines()) == 2
    assert [cli("exists", key, "--url", node.tcp).returncode for key in ("r1", "r2")] == [ABSENT, ABSENT]


@pytest.mark.parametrize("name, label", [("é" * 40, "é" * 31), ("x" * 60 + "😀", "x" * 60), ("x" * 59 + "😀", "x" * 59 + "😀"), ("a\x1b[31mb\nc", None)])
def test_odd_space_names(node, name, label):
    """A label is cut between characters; what is no text in it reaches no terminal."""
    cli_ok("put", "k", "--space", name, "--url", node.tcp, input=b"v")
    assert cli_json("space", "usage", name, "--url", node.tcp, "--json")["label"] == (label or name)
    spaces = cli_json("stat", "--url", node.tcp, "--json")["nodes"][0]["spaces"]
    assert (label or name) in [space["label"] for space in spaces]
    listed = cli_ok("space", "ls", "--url", node.tcp, text=True).stdout
    assert all(char == "\n" or char.isprintable() for char in listed), listed


def test_space_that_is_not_there(node):
    """A mistyped name is told, and makes no space."""
    for words in (["usage", "mistyped"], ["drop", "mistyped"]):
        done = cli("space", *words, "--url", node.tcp, text=True)
        assert done.returncode == ABSENT and "mistyped" in done.stderr and done.stdout == "", done.stderr
    assert "mistyped" not in cli_ok("space", "ls", "--url", node.tcp, text=True).stdout


def test_value_too_large(work, node):
    """One byte over 128 MiB is refused with the limit; exactly 128 MiB is stored."""
    with open(work / "large", "wb") as file:
        file.truncate(128 * MIB + 1)
    done = cli("put", "large", work / "large", "--url", node.tcp, text=True)
    assert done.returncode in (USAGE, REFUSED) and "128 MiB" in done.stderr, (done.returncode, done.stderr)
    assert cli("exists", "large", "--url", node.tcp).returncode == ABSENT


def test_spaces(any_url):
    """A space keeps its keys to itself; it can be listed, sized, and dropped."""
    for space in ("one", "two"):
        cli_ok("put", "k", "--space", space, "--url", any_url, input=space.encode())
    assert cli_ok("get", "k", "--space", "one", "--url", any_url).stdout == b"one"
    digest = wire.space_digest({b"name": b"two"}).hex()
    assert cli_ok("get", "k", "--space", f"sha256:{digest}", "--url", any_url).stdout == b"two"
    assert cli("get", "k", "--url", any_url).returncode == ABSENT
    listed = cli_ok("space", "ls", "--url", any_url, text=True).stdout
    assert "one" in listed and "two" in listed
    assert digest[:8] in cli_ok("space", "usage", "two", "--url", any_url, "--json", text=True).stdout
    cli_ok("space", "pin", "two", "1MiB", "--url", any_url)
    cli_ok("put", "pinned", "--pin", "--space", "two", "--url", any_url, input=b"stays")
    usage = cli_json("space", "usage", "two", "--url", any_url, "--json")
    usage = usage[0] if isinstance(usage, list) else usage
    assert (usage["pinned_bytes"], usage["blocks"]) == (5, 2) and usage["pin_budget_bytes"] == pytest.approx(MIB, abs=8)
    cli_ok("space", "drop", "one", "--url", any_url)
    assert cli("get", "k", "--space", "one", "--url", any_url).returncode == ABSENT
    assert cli_ok("get", "k", "--space", "two", "--url", any_url).stdout == b"two"


@pytest.mark.parametrize("name", ["ä" * 40, b"caf\xe9 noir", 'a"b\\c'], ids=["long", "not UTF-8", "quotes"])
def test_space_of_any_name(work, start_daemon, name):
    """The name of a space may be any bytes: what is shown of it is text, and no list or report fails over it."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"])
    cli_ok("put", "k", "--ack", "stable", "--space", os.fsdecode(name), "--url", daemon.tcp, input=b"v")
    assert cli_ok("get", "k", "--space", os.fsdecode(name), "--url", daemon.tcp).stdout == b"v"
    label = {0xc3: "ä" * 31, 0x63: "caf? noir", 0x61: 'a"b\\c'}[os.fsencode(name)[0]]
    assert [row["label"] for row in cli_json("space", "ls", "--url", daemon.tcp, "--json")] == [label]
    assert [row["label"] for row in cli_json("stat", "--url", daemon.tcp, "--json")["nodes"][0]["spaces"]] == [label]
    assert daemon.metric("headrace_space_blocks") == 1
    daemon.stop()
    assert [row["label"] for row in check_json(work / "image")["spaces"]] == [label]


# -- stat, bench, check, format, plan -------------------------------------------------------------------------------------------

def test_stat(node):
    cli_ok("put", "for stat", "--url", node.tcp, input=b"x")
    report = cli_json("stat", "--url", node.tcp, "--json")
    assert isinstance(report, dict) and report
    assert cli_ok("stat", "--url", node.tcp, text=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("op", ["get", "put", "exists"])
def test_bench(any_url, op):
    report = cli_json("bench", "--url", any_url, "--op", op, "--size", "64KiB", "--depth", "4", "--seconds", "1", "--json")
    assert {"ops", "seconds", "bytes_per_second", "ops_per_second", "latency_us", "errors"} <= set(report)
    assert report["ops"] > 0 and report["errors"] == 0 and 0.5 < report["seconds"] < 20
    assert 0 < report["latency_us"]["p50"] <= report["latency_us"]["p99"] <= report["latency_us"]["max"]
    assert abs(report["ops_per_second"] - report["ops"] / report["seconds"]) < 0.02 * report["ops_per_second"]
    if op != "exists":
        assert abs(report["bytes_per_second"] - report["ops_per_second"] * 64 * KIB) < 0.02 * report["bytes_per_second"]


@pytest.mark.slow
@pytest.mark.parametrize("extra", [["--batch", "8"], ["--tier", "dram"], ["--tier", "flash"], ["--threads", "2"]])
def test_bench_options(node, extra):
    report = cli_json("bench", "--url", node.tcp, "--op", "get", "--size", "16KiB", "--depth", "4", "--seconds", "1", *extra, "--json")
    assert report["ops"] > 0 and report["errors"] == 0


def test_format_and_check(work):
    """What format makes, check finds sound: segments as asked for, no block, no damage."""
    format_image(work / "image", 64 * MIB, segment="8MiB", shards=1)
    report = cli_json("check", work / "image", "--json")
    assert {"blocks", "bytes", "damaged", "segments"} <= set(report)
    assert (report["blocks"], report["bytes"], report["damaged"]) == (0, 0, 0)
    assert report["segments"] == (64 * MIB - MIB) // (8 * MIB)
    assert (work / "image").stat().st_size == 64 * MIB
    assert cli_ok("check", work / "image", text=True).stdout.strip()


def test_format_refuses(work):
    """An existing store and foreign content are refused, whole; --force is the way through, and the message says so."""
    format_image(work / "image", 64 * MIB)
    before = (work / "image").read_bytes()[:MIB]
    done = cli("format", work / "image", "--size", "64MiB", text=True)
    assert done.returncode == REFUSED and "--force" in done.stderr and "image" in done.stderr
    assert (work / "image").read_bytes()[:MIB] == before
    (work / "foreign").write_bytes(b"precious data " * 5_000_000)
    done = cli("format", work / "foreign", "--size", "64MiB", text=True)
    assert done.returncode == REFUSED and "--force" in done.stderr
    assert (work / "foreign").read_bytes() == b"precious data " * 5_000_000
    for length in (1, 4095, 4097):
        (work / "small").write_bytes(b"\0" * (length - 1) + b"!")
        done = cli("format", work / "small", "--size", "64MiB", text=True)
        assert done.returncode == REFUSED and "--force" in done.stderr and (work / "small").stat().st_size == length, length
    for at in (2 * MIB, 40 * MIB - 4096):  # A sparse file that begins with a hole, and one with something at its end.
        with open(work / "sparse", "wb") as file:
            file.truncate(40 * MIB)
            file.seek(at)
            file.write(b"!" * (40 * MIB - at))
        done = cli("format", work / "sparse", "--size", "40MiB", text=True)
        assert done.returncode == REFUSED and "--force" in done.stderr, at
    format_image(work / "foreign", 64 * MIB, force=True)
    assert cli_json("check", work / "foreign", "--json")["damaged"] == 0


@pytest.mark.parametrize("args, wanted", [
    (["--size", "1MiB"], "MiB"),
    (["--size", "64MiB", "--segment", "3MiB"], "8 MiB"),
    (["--size", "64MiB", "--segment", "2GiB"], "1 GiB"),
    (["--size", "64MiB", "--segment", "32MiB"], "4"),
    (["--size", "64MiB", "--shards", "9"], "MiB"),
])
def test_format_unusable_sizes(work, args, wanted):
    """The line names the size that would do."""
    done = cli("format", work / "image", *args, text=True)
    assert done.returncode in (USAGE, REFUSED) and wanted in done.stderr, done.stderr
    assert not (work / "image").exists()


def test_check_of_no_store(work):
    (work / "noise").write_bytes(b"noise" * MIB)
    done = cli("check", work / "noise", "--json", text=True)
    assert done.returncode not in (OK, ABSENT) and "noise" in done.stderr
    done = cli("check", work / "missing", "--json", text=True)
    assert done.returncode == UNREACHED and "missing" in done.stderr


def test_plan():
    """The figures follow from the stated formula: bytes a token of the preset, doubled sessions double the capacity."""
    args = ["plan", "--model", "llama-3.1-70b", "--gpus", "8", "--context", "32768", "--sessions", "100", "--link", "200Gbit"]
    text = cli_ok(*args, text=True).stdout
    assert "327680" in text.replace(",", "") or "320 KiB" in text
    report = cli_json(*args, "--json")
    assert report["bytes_per_token"] == 327680
    assert report["capacity_bytes"] >= 327680 * 32768 * 100
    args[args.index("100")] = "200"
    assert cli_json(*args, "--json")["capacity_bytes"] == pytest.approx(2 * report["capacity_bytes"], rel=0.01)
    done = cli("plan", "--model", "lama-3.1-70b", "--gpus", "8", text=True)
    assert done.returncode == USAGE and "llama-3.1-70b" in done.stderr.lower()


def test_no_progress_bar_in_a_pipe(work):
    done = format_image(work / "image", 64 * MIB)
    assert b"\r" not in done.stdout + done.stderr and b"\x1b" not in done.stdout + done.stderr


def test_closed_pipe(any_url):
    """A reader that goes away (headrace get | head) ends the command quietly, not with a crash."""
    cli_ok("put", "piped", "--url", any_url, input=bytes(8 * MIB))
    done = subprocess.run(["bash", "-c", f"'{program('headrace')}' get piped --url '{any_url}' | head -c 10 | wc -c; exit ${{PIPESTATUS[0]}}"],
                          capture_output=True, env=environment(), timeout=120, check=False)
    assert done.stdout.strip() == b"10"
    assert done.returncode not in (134, 139)


def test_full_disk():
    """Output that cannot be written is an error, not a success."""
    done = subprocess.run(["bash", "-c", f"'{program('headrace')}' version > /dev/full"], capture_output=True, check=False)
    assert done.returncode == UNREACHED and b"No space left" in done.stderr


def test_json_is_one_object(node):
    for args in (["stat", "--url", node.tcp, "--json"], ["bench", "--url", node.tcp, "--op", "put", "--size", "4KiB", "--depth", "1",
                                                         "--seconds", "1", "--json"]):
        assert isinstance(json.loads(cli_ok(*args).stdout), dict)
