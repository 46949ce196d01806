"""What the functional tests run: the built programs, real daemons, images. No pytest in here."""
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("HEADRACE_BUILD") or ROOT / "build")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# Time limits against real programs are watchdogs of twenty times the limit: they catch what hangs, not what is slow.
WATCHDOG_S = 120

# What must never stand in a log: a sanitizer's report, a failed assertion, a crash handler's line.
BAD_LOG = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|\bassert(ion)?\b.*\bfail|HR_ASSERT|"
                     r"\bassert\b|SIGSEGV|stack smashing|double free|corrupted size", re.IGNORECASE)


def program(name):
    return str(BUILD / name)


def environment(extra=None):
    """Nothing of the caller's HEADRACE_* leaks into what is tested."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    env.update(extra or {})
    return env


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def cli(*args, url=None, input=None, env=None, timeout=WATCHDOG_S, cwd=None, text=False):
    """Runs headrace and gives back the finished process; output as bytes, or as text."""
    extra = dict(env or {})
    if url is not None:
        extra["HEADRACE_URL"] = url
    done = subprocess.run([program("headrace"), *map(str, args)], input=input, capture_output=True, env=environment(extra),
                          timeout=timeout, cwd=cwd, check=False)
    assert not BAD_LOG.search(done.stderr.decode(errors="replace")), done.stderr.decode(errors="replace")
    assert done.returncode >= 0, f"headrace {args} was killed by signal {-done.returncode}: {done.stderr.decode(errors='replace')}"
    if text:
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def cli_ok(*args, **keywords):
    done = cli(*args, **keywords)
    assert done.returncode == 0, (args, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return done


def cli_json(*args, **keywords):
    return json.loads(cli_ok(*args, **keywords).stdout)


def format_image(path, size, segment=None, shards=None, force=False):
    args = ["format", path, "--size", str(size)]
    args += ["--segment", str(segment)] if segment else []
    args += ["--shards", str(shards)] if shards else []
    args += ["--force"] if force else []
    return cli_ok(*args)


def check_json(path):
    """`headrace check PATH --json`; its exit code says whether something is damaged, so it is not asserted here."""
    done = cli("check", path, "--json")
    assert done.stdout, done.stderr.decode()
    return json.loads(done.stdout)


def status_of(pid, field):
    """A number of /proc/PID/status, such as VmRSS in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    value = re.search(rf"^{field}:\s+(\d+)( kB)?", text, re.MULTILINE)
    return int(value.group(1)) * (KIB if value.group(2) else 1)


def wait_for(what, condition, seconds=WATCHDOG_S, step=0.02):
    """Polls until condition() is true, and gives what it returned."""
    until = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(step)


class Daemon:
    """headraced on free loopback ports, in a folder of its own. `devices` may be empty."""

    def __init__(self, folder, devices, *, dram="64MiB", options=(), env=None, wrap=(), tcp=True, unix=True, http=True, listen=()):
        self.folder, self.devices, self.dram = Path(folder), [str(path) for path in devices], dram
        self.options, self.env, self.wrap = list(options), env, list(wrap)
        self.tcp_port = free_port() if tcp else None
        self.http_port = free_port() if http else None
        self.socket = self.folder / "hr.sock" if unix else None
        self.listen = list(listen)
        self.log_path = self.folder / "headraced.log"
        self.process = None
        self.log_start = 0  # Where the log of this start begins.
        self.ready_s = None

    @property
    def tcp(self):
        return f"tcp:127.0.0.1:{self.tcp_port}"

    @property
    def unix(self):
        return f"unix:{self.socket}"

    def url(self, kind):
        return {"tcp": self.tcp, "unix": self.unix}[kind]

    def command(self):
        args = [program("headraced")]
        if self.devices:
            args += ["--device", ",".join(self.devices)]
        if self.dram:
            args += ["--dram", str(self.dram)]
        if self.tcp_port:
            args += ["--listen", self.tcp]
        if self.socket:
            args += ["--listen", self.unix]
        for address in self.listen:
            args += ["--listen", address]
        if self.http_port:
            args += ["--http", f"127.0.0.1:{self.http_port}"]
        return [*self.wrap, *args, *map(str, self.options)]

    def start(self, wait=True):
        started = time.monotonic()
        self.log_start = len(self.log())
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                            env=environment(self.env), cwd=self.folder)
        if wait:
            self.wait_ready()
            self.ready_s = time.monotonic() - started
        return self

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def running(self):
        return self.process is not None and self.process.poll() is None

    def get(self, path, timeout=20):
        """(status, text) of a page; (0, reason) when there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self, seconds=WATCHDOG_S):
        """Until it serves and has said so: the line may come after the page, and whoever counts lines starts from a log at rest."""
        def ready():
            assert self.running(), f"headraced ended with {self.process.returncode}: {self.log()[-3000:]}"
            return self.get("/healthz")[0] == 200 and " event=ready " in self.log()[self.log_start:]

        wait_for("headraced is ready", ready, seconds)

    def metrics(self):
        """{name{labels}: value} of /metrics."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))}

    def metric(self, pattern):
        """The sum of all metrics whose name and labels match."""
        found = [value for name, value in self.metrics().items() if re.search(pattern, name)]
        assert found, f"no metric matches {pattern}: {sorted(self.metrics())}"
        return sum(found)

    def metrics_of(self, name, **labels):
        """The sum of one metric over what has these labels."""
        found = [value for text, value in self.metrics().items() if text.split("{")[0] == name and
                 all(f'{label}="{wanted}"' in text for label, wanted in labels.items())]
        assert found, f"no metric {name} with {labels}"
        return sum(found)

    def wait_log(self, pattern, count=1, seconds=WATCHDOG_S):
        return wait_for(f"{pattern} in the log", lambda: len(re.findall(pattern, self.log())) >= count, seconds)

    def stop(self, seconds=20):
        """SIGTERM; ends within 20 x the limit of one second, with exit code 0."""
        if not self.running():
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"headraced did not stop within {seconds} s of SIGTERM: {self.log()[-3000:]}") from None
        assert code == 0, f"headraced stopped with {code}: {self.log()[-3000:]}"

    def kill(self):
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def run_to_end(self, seconds=WATCHDOG_S):
        """For a start that must fail: -> (exit code, log)."""
        self.start(wait=False)
        try:
            return self.process.wait(seconds), self.log()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"headraced was expected to refuse to start, but runs: {self.log()[-3000:]}") from None

    def check_log(self):
        bad = BAD_LOG.search(self.log())
        assert not bad, f"{bad.group(0)!r} in {self.log()[-4000:]}"
        if self.process is not None and self.process.returncode is not None:
            assert self.process.returncode not in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE), (
                f"headraced died of signal {-self.process.returncode}: {self.log()[-4000:]}")
