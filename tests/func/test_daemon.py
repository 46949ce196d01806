"""headraced from its operator's side: configuration, health, metrics, reload, stop, the start with no option at all."""
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import urllib.request
from pathlib import Path

import libheadrace as lib
import pytest
import wire
from blocks import assert_all_there, fill, key_of, look
from harness import (GIB, MIB, ROOT, WATCHDOG_S, Daemon, cli, cli_json, cli_ok, environment, format_image, free_port, program, wait_for)


def test_health_and_metrics(work, start_daemon):
    """GET /healthz is 200 once ready; /metrics is Prometheus text with what the issue asks for; other pages are 404."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"])
    with lib.Client(daemon.tcp) as client:
        space = client.space("metrics")
        fill(space, [key_of(0)], 1000)
        assert space.get(key_of(0))[1] == "none" and space.get(b"nothing") == (None, "absent")
        assert daemon.get("/healthz")[0] == 200
        assert daemon.get("/nonsense")[0] == 404
        status, text = daemon.get("/metrics")
        assert status == 200
        samples = [line for line in text.splitlines() if line and not line.startswith("#")]
        for line in samples:
            assert re.fullmatch(r'headrace_[a-z0-9_]+(\{([a-z_]+="[^"\\]*",?)*\})? [-+0-9.eE]+(inf|nan)?', line), line
        typed = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram|summary)$", text, re.MULTILINE))
        names = {re.match(r"[a-z0-9_]+", line).group(0) for line in samples}
        for name in names:
            assert name in typed or re.sub(r"_(bucket|sum|count)$", "", name) in typed, f"{name} has no TYPE"
        assert len(samples) == len({line.rsplit(" ", 1)[0] for line in samples}), "a metric is there twice"
        for reason in ("absent", "evicted", "expired", "deleted", "quota", "deadline", "corrupt", "size_mismatch", "busy"):
            assert f'"{reason}"' in text, f"no counter of the miss reason {reason}"
        for word in ("dram", "flash", "space", "queue"):
            assert word in text, word
        assert daemon.metric("headrace_dram_used_bytes") >= 1000, "bytes are bytes"
        before = daemon.metric(r'get_misses_total.*reason="absent"')
        space.get(b"nothing else")
        wait_for("the miss is counted", lambda: daemon.metric(r'get_misses_total.*reason="absent"') >= before + 1)


def test_http_is_not_for_everybody(work, start_daemon):
    """The health page takes GET and HEAD; anything else, and nonsense, is answered or closed, and the node goes on."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"])
    for text in (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"\0\1\2\3" * 100, b"GET " + b"/" * 100_000):
        with socket.create_connection(("127.0.0.1", daemon.http_port), 20) as sock:
            sock.settimeout(1)
            try:
                sock.sendall(text + b"\r\n\r\n")
                sock.recv(100)
            except OSError:
                pass
    assert daemon.get("/healthz")[0] == 200


CONFIG = """
device:
  - {image}
dram: 32MiB
listen:
  - tcp:127.0.0.1:{tcp}
  - unix:{work}/config.sock
http: 127.0.0.1:{http}
"""


def config_daemon(work, text, start_daemon=None, **keywords):
    daemon = Daemon(work, [], dram=None, tcp=False, unix=False, http=False, options=["--config", work / "headraced.yaml"], **keywords)
    daemon.http_port, daemon.tcp_port = free_port(), free_port()
    (work / "headraced.yaml").write_text(text.format(work=work, image=work / "image", tcp=daemon.tcp_port, http=daemon.http_port))
    daemon.command = lambda: [program("headraced"), "--config", str(work / "headraced.yaml"), *daemon.options[2:]]
    return daemon


def test_config_file(work):
    """The same options from YAML; the command line is stronger."""
    format_image(work / "image", 64 * MIB)
    daemon = config_daemon(work, CONFIG)
    daemon.start()
    try:
        cli_ok("put", "k", "--url", f"unix:{work}/config.sock", input=b"v")
        assert cli_ok("get", "k", "--url", f"tcp:127.0.0.1:{daemon.tcp_port}").stdout == b"v"
        daemon.stop()
        daemon.check_log()
    finally:
        daemon.kill()


@pytest.mark.parametrize("text, wanted", [
    ("devise:\n  - /tmp/x\n", "device"),
    ("dramm: 1GiB\n", "dram"),
    ("dram: plenty\n", "plenty"),
    ("listen: [unterminated\n", "headraced.yaml"),
    ("listen:\n  - carrier-pigeon:coop\n", "carrier-pigeon"),
    ("\x01\x02\x03", "headraced.yaml"),
])
def test_unusable_config(work, text, wanted):
    """An unknown key is refused with the nearest valid name; a bad value is named, with its file."""
    (work / "headraced.yaml").write_text(text)
    done = subprocess.run([program("headraced"), "--config", work / "headraced.yaml"], capture_output=True, timeout=WATCHDOG_S,
                          env=environment({"XDG_DATA_HOME": str(work)}), check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2 or done.returncode == 1, (done.returncode, said)
    assert wanted in said, said


def test_unreadable_config(work):
    done = subprocess.run([program("headraced"), "--config", work / "missing.yaml"], capture_output=True, timeout=WATCHDOG_S,
                          env=environment(), check=False)
    assert done.returncode != 0 and b"missing.yaml" in done.stderr and b"No such file" in done.stderr
    done = subprocess.run([program("headraced"), "--config", work], capture_output=True, timeout=WATCHDOG_S, env=environment(), check=False)
    assert done.returncode != 0 and str(work).encode() in done.stderr


def test_every_option_has_help():
    done = subprocess.run([program("headraced"), "--help"], capture_output=True, check=True)
    for option in ("--device", "--dram", "--listen", "--http", "--config"):
        assert option.encode() in done.stdout, option
    done = subprocess.run([program("headraced"), "--devise", "x"], capture_output=True, check=False, timeout=WATCHDOG_S)
    assert done.returncode == 2 and b"--device" in done.stderr


def test_no_option_at_all(work):
    """Starts a small store under XDG_DATA_HOME on loopback and prints the URL to use; found again by the next start."""
    env = environment({"XDG_DATA_HOME": str(work)})

    def run(check):
        process = subprocess.Popen([program("headraced")], stdout=subprocess.PIPE, stderr=open(work / "log", "wb"), env=env, cwd=work)
        try:
            os.set_blocking(process.stdout.fileno(), False)
            text = [b""]

            def url():
                assert process.poll() is None, (work / "log").read_text()
                text[0] += process.stdout.read() or b""
                return re.search(rb"\b((?:tcp:(?:127\.0\.0\.1|localhost)|unix:)\S+)", text[0] + (work / "log").read_bytes())

            found = wait_for("the URL", url).group(1).decode().rstrip(".,")
            wait_for("it answers", lambda: cli("stat", "--url", found, "--json").returncode == 0)
            check(found)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    run(lambda url: cli_ok("put", "k", "--url", url, "--ack", "stable", input=b"kept"))
    run(lambda url: None if cli_ok("get", "k", "--url", url).stdout == b"kept" else pytest.fail("not kept"))
    images = [path for path in work.rglob("*") if path.is_file() and path.stat().st_size >= 32 * MIB]
    assert len(images) == 1
    free = os.statvfs(work)
    assert images[0].stat().st_size <= 8 * GIB
    assert images[0].stat().st_size <= max(free.f_bavail * free.f_frsize // 10 * 2, 64 * MIB)


@pytest.mark.slow
def test_sigterm_drains(work, start_daemon):
    """SIGTERM while clients are busy: what was acknowledged is there after the restart, and the stop takes at most 20 x one second."""
    format_image(work / "image", 256 * MIB)
    daemon = start_daemon(work, [work / "image"])
    with lib.Client(daemon.tcp) as client:
        space = client.space("drain")
        keys = [key_of(index) for index in range(400)]
        fill(space, keys, 100_000, ack=lib.RAM)
        tickets = []
        for _ in range(20):
            batch = lib.Batch(len(keys))
            for index, key in enumerate(keys):
                batch.key(index, key, expected_len=lib.LEN_ANY)
                batch.memory(index, (lib.c.c_char * 100_000)())
            tickets.append((space.submit(lib.GET, batch), batch))
        daemon.stop(20)
        for ticket, batch in tickets:
            done = client.wait(ticket, 60000)  # Exactly one completion each, whatever became of it.
            assert done.items_count == len(keys)
        daemon.start()
        wait_for("the client is connected again", lambda: space.get(keys[0], room=100_000)[1] == "none")
        assert_all_there(space, keys, 100_000)


def test_reload(work, start_daemon):
    """SIGHUP reads the configuration again: a live option changes, a bad file changes nothing and is said."""
    format_image(work / "image", 64 * MIB)
    daemon = config_daemon(work, CONFIG + "log_level: info\n")
    daemon.start()
    try:
        config = (work / "headraced.yaml").read_text()
        (work / "headraced.yaml").write_text(config.replace("log_level: info", "log_level: debug"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_log(r"reload")
        (work / "headraced.yaml").write_text("nonsense: [")
        before = daemon.log().count("level=error")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for("the refusal is said", lambda: daemon.log().count("level=error") > before)
        assert daemon.get("/healthz")[0] == 200
        daemon.stop()
    finally:
        daemon.kill()


def test_log_lines(work, start_daemon):
    """Every line of the log is key=value, whatever the names of devices and sockets are."""
    format_image(work / 'an "image"', 64 * MIB)
    daemon = start_daemon(work, [work / 'an "image"', work / 'no "image"'], listen=[f'unix:{work}/a "socket"'])
    daemon.stop()
    lines = [line for line in daemon.log().splitlines() if line.startswith("ts=")]
    assert len(lines) >= 2
    for line in lines:
        assert re.fullmatch(r'(?:[a-z_0-9.]+=(?:"(?:[^"\\]|\\.)*"|\S*) ?)+', line), line


def test_not_on_the_world_without_tokens(work):
    """A listener on anything but loopback without tokens is refused, and the way through is named."""
    format_image(work / "image", 64 * MIB)
    daemon = Daemon(work, [work / "image"], tcp=False, listen=[f"tcp:0.0.0.0:{free_port()}"])
    code, log = daemon.run_to_end()
    assert code != 0 and "--insecure" in log and "0.0.0.0" in log
    daemon = Daemon(work, [work / "image"], tcp=False, listen=[f"tcp:0.0.0.0:{free_port()}"], options=["--insecure"])
    daemon.start()
    daemon.stop()


@pytest.mark.slow
def test_several_devices(work, start_daemon):
    """Three devices in one node, one of two shards: blocks spread over all, come back, and survive a restart in another order."""
    for name, shards in (("a", 1), ("b", 2), ("c", 1)):
        format_image(work / name, 96 * MIB, shards=shards)
    daemon = start_daemon(work, [work / "a", work / "b", work / "c"])
    keys = [key_of(index) for index in range(600)]
    with lib.Client(daemon.tcp) as client:
        fill(client.space("many"), keys, 20_000)
        assert_all_there(client.space("many"), keys, 20_000)
    daemon.stop()
    for name in "abc":
        assert json.loads(cli("check", work / name, "--json").stdout)["blocks"] > 50
    daemon.devices.reverse()
    daemon.start()
    with lib.Client(daemon.unix) as client:
        assert_all_there(client.space("many"), keys, 20_000)


@pytest.mark.slow
def test_idle_does_not_spin(work, start_daemon):
    """Nothing spins when idle: a second and a half of a quiet node costs next to no processor time."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"])
    with lib.Client(daemon.tcp) as client:
        client.space("idle").put(b"k", b"v")

        def ticks():
            fields = open(f"/proc/{daemon.process.pid}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/healthz", timeout=20).close()
        before = ticks()
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(1.5)
        assert ticks() - before <= 0.25 * os.sysconf("SC_CLK_TCK")


def test_reload_devices(work, start_daemon):
    """SIGHUP takes a device that was missing at the start, lets one go that is no longer named, and the others serve on."""
    for name in "ab":
        format_image(work / name, 64 * MIB)
    (work / "b").rename(work / "away")
    daemon = config_daemon(work, CONFIG.replace("  - {image}", "  - {work}/a\n  - {work}/b"))
    daemon.start()
    try:
        assert "device_missing" in daemon.log() and f"{work}/b" in daemon.get("/healthz")[1]
        assert daemon.metric(rf'headrace_device_up.*"{work}/b"') == 0
        with lib.Client(f"tcp:127.0.0.1:{daemon.tcp_port}") as client:
            assert client.space("reload").put(b"k", b"v") == "none"
            # The configuration of the start goes with the first reload: what comes later is not to lean on it.
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_log("event=reloaded")
            (work / "away").rename(work / "b")
            daemon.process.send_signal(signal.SIGHUP)
            wait_for("the device is taken", lambda: daemon.metric(rf'headrace_device_up.*"{work}/b"') == 1)
            wait_for("its shard serves", lambda: daemon.metric("headrace_shard_ready") == 2)
            keys = [key_of(index) for index in range(200)]
            fill(client.space("reload"), keys, 3000)
            assert_all_there(client.space("reload"), keys, 3000)
            assert daemon.metric(rf'headrace_shard_blocks.*"{work}/b"') > 20
            config = (work / "headraced.yaml").read_text()
            (work / "headraced.yaml").write_text(config.replace(f"  - {work}/b\n", f"  - {work}/c\n"))
            daemon.process.send_signal(signal.SIGHUP)
            wait_for("the device is gone", lambda: f'"{work}/b"' not in daemon.get("/metrics")[1])
            wait_for("one that is not there is named", lambda: f"{work}/c does not exist" in daemon.get("/healthz")[1])
            assert daemon.metric(rf'headrace_device_up.*"{work}/c"') == 0
            (work / "headraced.yaml").write_text(config.replace(f"  - {work}/b\n", ""))
            daemon.process.send_signal(signal.SIGHUP)
            wait_for("nobody misses it any more", lambda: daemon.get("/healthz") == (200, "ready\n"))
            wait_for("the map says so", lambda: client.space("reload").put(b"after", b"v") == "none")
        daemon.stop()
        daemon.check_log()
        with lib.Client(f"file:{work}/b") as client:  # Nobody holds it any more, and it is whole.
            assert sum(reason == "none" for reason in look(client.space("reload"), keys, 3000).values()) > 20
    finally:
        daemon.kill()


def test_open_files(work, start_daemon):
    """The soft limit of open files is raised to the hard one. Where that is too low for conns_max, fewer connections are taken: who asks
    beyond them is told, and the health page goes on answering."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"], wrap=["sh", "-c", 'ulimit -Sn 64; ulimit -Hn 300; exec "$@"', "sh"])
    assert re.search(r"^Max open files +300 +300 ", Path(f"/proc/{daemon.process.pid}/limits").read_text(), re.MULTILINE)
    said = re.findall(r"level=warn .*event=fewer_connections conns_max=(\d+) wanted=4096 limit_nofile=300 ", daemon.log())
    assert len(said) == 1 and 16 <= int(said[0]) <= 150, daemon.log()
    connections = []
    try:
        with pytest.raises(wire.Refused) as refused:
            while len(connections) < 300:
                connections.append(wire.Connection(daemon.tcp))
        assert wire.FRAME_STATUS[refused.value.status] == "too many connections" and len(connections) == int(said[0])
        silent = [wire.Connection(daemon.tcp, hello=False) for _ in range(100)]
        assert daemon.get("/healthz")[0] == 200
        assert daemon.metric("headrace_connections_refused_total") >= 1
        connections[0].call(wire.PING)
        for one in silent:
            one.close()
    finally:
        for one in connections:
            one.close()
    wait_for("a new one is taken", lambda: cli("stat", "--url", daemon.tcp, "--json").returncode == 0)


@pytest.mark.slow
def test_storm_of_connections(work, start_daemon):
    """Thousands that connect at once, as after a restart, and all want the shard of another thread: each of them gets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"only {hard} files may be open here")
    format_image(work / "image", 96 * MIB, shards=2)
    daemon = start_daemon(work, [work / "image"], options=["--threads", "2"])
    with wire.Connection(daemon.unix) as connection:
        other, = {uuid for uuid, _, _, _ in connection.server.map.shards} - {connection.server.shard}
    hello, sockets = wire.frame(wire.HELLO, wire.client_hello(shard=other), count=1), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        for _ in range(3500):
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].connect(str(daemon.socket))  # Without a time limit: it waits where the queue of the listener is full.
            sockets[-1].settimeout(WATCHDOG_S)
            sockets[-1].sendall(hello)
        answers = {wire.Frame(sock.recv(wire.HEADER_BYTES, socket.MSG_WAITALL)).status for sock in sockets}
        assert answers == {wire.OK}, answers
        assert daemon.metric("headrace_connections_handed_over_total") >= 3500
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nodes_differ(work, start_daemon):
    """Two nodes are two nodes, also when the first device of both is missing."""
    nodes = set()
    for name in ("one", "two"):
        (work / name).mkdir()
        format_image(work / name / "image", 64 * MIB)
        daemon = start_daemon(work / name, [work / name / "missing", work / name / "image"])
        nodes.add(cli_json("stat", "--url", daemon.tcp, "--json")["nodes"][0]["node_uuid"])
    assert len(nodes) == 2


def test_says_when_it_is_ready(work):
    """What systemd is told: READY=1 once the shards serve, STOPPING=1 at the end."""
    format_image(work / "image", 64 * MIB)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(work / "notify"))
        listener.settimeout(WATCHDOG_S)
        daemon = Daemon(work, [work / "image"], env={"NOTIFY_SOCKET": str(work / "notify")})
        daemon.start()
        try:
            assert listener.recv(100) == b"READY=1"
            daemon.stop()
            assert listener.recv(100) == b"STOPPING=1"
        finally:
            daemon.kill()


def test_backend_is_said(work, start_daemon, nouring):
    """Which seams were chosen, and why not the first choice, is one line of the log and a part of STAT."""
    format_image(work / "image", 64 * MIB)
    daemon = start_daemon(work, [work / "image"], wrap=[nouring])
    said = [line for line in daemon.log().splitlines() if "event=backend" in line]
    assert len(said) == 1 and said[0].endswith('disk=pread net=epoll note="io_uring refused: Operation not permitted"'), said
    assert cli_json("stat", "--url", daemon.tcp, "--json")["nodes"][0]["backend"]["disk"] == "pread"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's limits")
def test_small_memory_lock_limit(work, start_daemon):
    """Memory that may not be locked is used unregistered: said in one line and in STAT, and everything works."""
    nobody = ["prlimit", "--memlock=65536:65536", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*nobody, program("headraced"), "--help"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the build folder is not readable by another user")
    format_image(work / "image", 64 * MIB)
    for path in (work, work / "image", work / "image.lock"):
        os.chown(path, 65534, 65534)
    daemon = start_daemon(work, [work / "image"], wrap=nobody)
    with lib.Client(daemon.tcp) as client:
        fill(client.space("x"), [key_of(0)], 100_000)
        assert_all_there(client.space("x"), [key_of(0)], 100_000)
    backend = cli_json("stat", "--url", daemon.tcp, "--json")["nodes"][0]["backend"]
    if backend["disk"] != "io_uring":
        pytest.skip(f"no io_uring for another user here: {backend}")
    assert "registered memory refused" in backend["note"]
    assert daemon.log().count("event=memory_unregistered") == 1


def test_packaged_files(work, start_daemon):
    """The sample configuration can be used; the unit waits for readiness, and its umask lets the group connect to the Unix socket."""
    done = subprocess.run([program("headraced"), "--config", ROOT / "packaging" / "headraced.yaml", "--check-config"], capture_output=True,
                          timeout=WATCHDOG_S, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    unit = (ROOT / "packaging" / "headraced.service").read_text()
    assert "Type=notify\n" in unit
    format_image(work / "image", 64 * MIB)
    umask = re.search(r"^UMask=(\d+)$", unit, re.MULTILINE).group(1)
    daemon = start_daemon(work, [work / "image"], wrap=["sh", "-c", f'umask {umask}; exec "$@"', "sh"])
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o770


def test_check_config(work):
    """--check-config says whether the configuration can be used, and starts nothing."""
    (work / "headraced.yaml").write_text(f"device: [{work}/image]\nhttp: 127.0.0.1:7451\n")
    done = subprocess.run([program("headraced"), "--config", work / "headraced.yaml", "--check-config"], capture_output=True, check=True,
                          timeout=WATCHDOG_S, env=environment())
    assert b"can be used" in done.stdout and not (work / "image").exists()
    (work / "headraced.yaml").write_text("listen: [tcp:0.0.0.0:7450]\n")
    done = subprocess.run([program("headraced"), "--config", work / "headraced.yaml", "--check-config"], capture_output=True, check=False,
                          timeout=WATCHDOG_S, env=environment())
    assert done.returncode == 2 and b"--insecure" in done.stderr
