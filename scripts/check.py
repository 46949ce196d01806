#!/usr/bin/env python3
"""check.py [fast|full|traces]: runs the tests and sums them up.

The last line is "N passed, N failed" alone; the exit status is 0 only when something passed and nothing failed. What a stage
prints goes to build/check/STAGE.log, and here when the stage fails.

  fast     unit, simulation and header tests, and the functional tests that take seconds
  full     everything: fault tests, the same under AddressSanitizer, UBSan and ThreadSanitizer, all functional tests, and those
           once more with io_uring refused and little memory that may be locked
  traces   whole production traces, minutes to hours
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD") or "build")
BUILD = BUILD if BUILD.is_absolute() else ROOT / BUILD
LOGS = BUILD / "check"
STAGE_SECONDS_MAX = {"fast": 110, "full": 900, "traces": 6 * 3600}

# Programs with threads of their own, or rings between them, under ThreadSanitizer.
THREADED = ("base_ring", "base_log", "base_metric", "node", "client", "io_", "pread", "blocking", "server")


LOCK = threading.RLock()
RUNNING = set()


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add_xml(self, path):
        """Adds a JUnit file of meson's or pytest's; returns the number of cases, 0 when there is none."""
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError):
            return 0
        cases = 0
        for case in root.iter("testcase"):
            cases += 1
            if case.find("skipped") is not None:
                self.skipped += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
                self.failures.append(f"{case.get('classname') or ''} {case.get('name')}".strip())
            else:
                self.passed += 1
        return cases

    def add_dead_programs(self, path):
        """meson's own list: programs that ended badly without a failed case, by a signal or a sanitizer for instance."""
        seen = set(self.failures)
        for line in path.read_text().splitlines() if path.exists() else ():
            test = json.loads(line)
            named = any(test["name"] in failure for failure in seen)
            if test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL") and not named:
                self.add_failure(f"{test['name']}: {test['result'].lower()}, status {test.get('returncode')}")

    def add_failure(self, what):
        self.failed += 1
        self.failures.append(what)

    def merge(self, other):
        with LOCK:
            self.passed += other.passed
            self.failed += other.failed
            self.skipped += other.skipped
            self.failures += other.failures


def stop(number, _frame):
    """A check that is told to stop leaves no tests behind: they stop their own servers at SIGINT."""
    for how, seconds in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 0)):
        left = [process for process in list(RUNNING) if process.poll() is None]
        for process in left:
            os.killpg(process.pid, how)
        end = time.monotonic() + seconds
        while any(process.poll() is None for process in left) and time.monotonic() < end:
            time.sleep(0.1)
    say("0 passed, 1 failed" if number == signal.SIGTERM else "interrupted")
    os._exit(128 + number)


def say(text):
    print(text, flush=True)


def run(name, argv, seconds_max, env=None):
    """Runs one command into its log; returns its exit status (124: it ran out of time)."""
    log_path = LOGS / f"{name}.log"
    merged = dict(os.environ, **(env or {}))
    with open(log_path, "wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env=merged, start_new_session=True)
        RUNNING.add(process)
        try:
            return process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 124
        finally:
            RUNNING.discard(process)


def show_tail(name, lines=40):
    text = (LOGS / f"{name}.log").read_text(errors="replace").splitlines()
    for line in text[-lines:]:
        say(f"    {line}")


def stage(totals, name, argv, xml_path, seconds_max, env=None):
    """A command that leaves a JUnit file. One that fails without a failed case in it counts as a failure itself."""
    programs_path = xml_path.with_name("testlog.json")
    for path in (xml_path, programs_path):
        path.unlink(missing_ok=True)
    mine = Totals()
    started = time.monotonic()
    status = run(name, argv, seconds_max, env)
    cases = mine.add_xml(xml_path)
    mine.add_dead_programs(programs_path)
    if status == 124:
        mine.add_failure(f"{name}: not done after {seconds_max} s")
    elif status != 0 and mine.failed == 0:
        mine.add_failure(f"{name}: exit status {status}")
    elif cases == 0:
        mine.add_failure(f"{name}: no tests were found")
    totals.merge(mine)
    with LOCK:
        say(f"{name:<24} {mine.passed:>5} passed {mine.failed:>3} failed {mine.skipped:>3} skipped "
            f"{time.monotonic() - started:>6.0f} s")
        if mine.failed:
            show_tail(name)


def meson(totals, name, build, suites, seconds_max, tests=(), multiplier=1):
    argv = ["meson", "test", "-C", str(build), "--no-rebuild", "--print-errorlogs", "-t", str(multiplier)]
    for suite in suites:
        argv += ["--suite", suite]
    stage(totals, name, argv + list(tests), build / "meson-logs" / "testlog.junit.xml", seconds_max)


def pytest(totals, name, arguments, seconds_max, wrapper=(), env=None):
    xml_path = LOGS / f"{name}.xml"
    argv = [*wrapper, sys.executable, "-m", "pytest", "-q", f"--junitxml={xml_path}", "tests/func", *arguments]
    stage(totals, name, argv, xml_path, seconds_max, dict(env or {}, HEADRACE_BUILD=str(BUILD)))


def configure(totals, name, build, options, targets, env=None):
    """A second build folder; False, and a failure, when it does not build."""
    started = time.monotonic()
    status = run(f"{name}-build", ["scripts/configure.sh", str(build), *options], 120, env)
    if status == 0:
        status = run(f"{name}-build", ["ninja", "-C", str(build), *targets], 900, env)
    if status != 0:
        with LOCK:
            totals.add_failure(f"{name}: does not build")
            show_tail(f"{name}-build")
        return False
    say(f"{name + ' build':<24} {'':>33} {time.monotonic() - started:>6.0f} s")
    return True


def sanitizer_compiler():
    """clang where it is whole, since the main build is gcc's and so both are tried; else gcc."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "t.c"
        source.write_text("int main(void) { return 0; }\n")
        for cc in ("clang", "gcc", "cc"):
            argv = [cc, "-fsanitize=address,undefined", "-o", f"{folder}/t", str(source)]
            if shutil.which(cc) and subprocess.run(argv, capture_output=True, check=False).returncode == 0:
                return cc
    return "cc"


def test_programs(build, suites):
    """(name, target) of the tests of some suites."""
    text = subprocess.run(["meson", "introspect", "--tests", str(build)], capture_output=True, check=True).stdout
    for test in json.loads(text):
        if any(suite.split(":")[-1] in suites for suite in test["suite"]):
            yield test["name"], f"tests/{test['name']}"


def check_sanitizers(totals):
    cc = sanitizer_compiler()
    asan = BUILD.with_name(BUILD.name + "-asan")
    options = ["-Dbuildtype=debug", "-Doptimization=1", "-Db_lundef=false", "-Dc_args=-DHR_DEBUG=1"]
    # gcc's sanitizers make it warn of what is not so (maybe-uninitialized); clang's do not.
    werror = [f"-Dwerror={'true' if cc == 'clang' else 'false'}"]
    if configure(totals, "asan", asan, [*options, *werror, "-Dfault=true", "-Db_sanitize=address,undefined"], [], {"CC": cc}):
        meson(totals, f"asan ({cc})", asan, ["unit", "sim", "fault", "fuzz"], 600, multiplier=4)
    tsan = BUILD.with_name(BUILD.name + "-tsan")
    if run("tsan-setup", ["scripts/configure.sh", str(tsan), *options, "-Dwerror=false", "-Db_sanitize=thread"], 120, {"CC": "gcc"}) != 0:
        totals.add_failure("tsan: does not configure")
        show_tail("tsan-setup")
        return
    threaded = [(name, target) for name, target in test_programs(tsan, ("unit",)) if any(word in name for word in THREADED)]
    targets = [target for _, target in threaded]
    if not targets:
        totals.add_failure("tsan: no programs with threads were found")
        return
    if configure(totals, "tsan", tsan, [], targets, {"CC": "gcc"}):
        meson(totals, "tsan", tsan, ["unit"], 300, [name for name, _ in threaded], multiplier=4)


def check_func(totals, seconds_max):
    """All functional tests, then once more as a container runtime would run them."""
    pytest(totals, "func", [], seconds_max)
    nouring = LOGS / "nouring"
    source = ROOT / "tests" / "func" / "nouring.c"
    if run("nouring-build", ["cc", "-O1", "-o", str(nouring), str(source)], 60) != 0:
        totals.add_failure("nouring: does not build")
        return
    pytest(totals, "func, io_uring refused", [], seconds_max, wrapper=[str(nouring)])


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else "full"
    if mode not in STAGE_SECONDS_MAX:
        say(__doc__)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    limit = STAGE_SECONDS_MAX[mode]
    totals = Totals()
    started = time.monotonic()
    if mode == "traces":
        pytest(totals, "traces", ["-m", "traces"], limit)
    elif mode == "fast":
        meson(totals, "unit, sim, headers", BUILD, ["unit", "sim", "headers"], limit)
        pytest(totals, "func", ["-m", "not slow and not traces and not soak"], limit)
    else:
        meson(totals, "unit, sim, fault, …", BUILD, ["unit", "sim", "fault", "fuzz", "headers"], limit)
        # The functional tests wait more than they compute; the sanitizers compute.
        def lane(work, *args):
            try:
                work(totals, *args)
            except Exception as error:  # pylint: disable=broad-except; a lane that ends early must not pass for a whole one
                totals.add_failure(f"{work.__name__}: {error!r}")

        lanes = [threading.Thread(target=lane, args=(check_func, limit)), threading.Thread(target=lane, args=(check_sanitizers,))]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
    say(f"{'all':<24} {totals.passed:>5} passed {totals.failed:>3} failed {totals.skipped:>3} skipped "
        f"{time.monotonic() - started:>6.0f} s; logs are in {os.path.relpath(LOGS, ROOT)}/")
    for failure in totals.failures:
        say(f"failed: {failure}")
    say(f"{totals.passed} passed, {totals.failed} failed")
    return 0 if totals.passed > 0 and totals.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
