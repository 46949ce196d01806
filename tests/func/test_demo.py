"""make demo, small: what it says, what it leaves, and that it leaves no more when it is stopped or nobody listens."""
import contextlib
import os
import signal
import subprocess

import pytest
from harness import ROOT, WATCHDOG_S, environment, program

pytestmark = pytest.mark.slow


@pytest.fixture
def demo(work):
    """-> (a started demo.sh in a session of its own, what is left of it)"""
    (work / "b").mkdir()
    for name in ("headrace", "headraced"):
        (work / "b" / name).symlink_to(program(name))
    env = environment({"BUILD": str(work / "b"), "TMPDIR": str(work), "HEADRACE_TRACES": str(work / "none"), "DEMO_SIZE": "128MiB",
                       "DEMO_DRAM": "64MiB", "DEMO_BLOCK": "4KiB", "DEMO_AGENT_BLOCK": "4KiB"})
    started = []

    def start(**extra):
        # What runs the tests may ignore them, and the shell cannot then trap them.
        started.append(subprocess.Popen([ROOT / "scripts" / "demo.sh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env | extra,
                                        start_new_session=True, restore_signals=True,
                                        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)]))
        return started[0]

    def left():
        return {str(path.relative_to(work)) for path in work.rglob("*")} - {"b", "b/headrace", "b/headraced", "b/demo"}

    yield start, left
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_generated(demo):
    """Without traces it says that it makes its own; the reports stay and nothing else."""
    start, left = demo
    text = start(DEMO_REQUESTS="30").communicate(timeout=WATCHDOG_S)[0].decode()
    assert text.count("generated with") == 2 and text.count("usable-prefix hits") == 2 and "infinite cache" in text, text
    assert left() == {"b/demo/conversation.html", "b/demo/agents.html"}
    for report in left():
        assert report in text


@pytest.mark.parametrize("how", ["reader", "SIGINT", "SIGHUP", "SIGTERM", "trace"])
def test_leaves_nothing(demo, how):
    """A reader that goes away, signals to all that runs, a trace that is not there."""
    start, left = demo
    process = start(**({"TRACE": "/nonexistent"} if how == "trace" else {}))
    for line in process.stdout:
        if how == "trace" or line.startswith(b"== a workload"):
            break
    process.stdout.close()
    if how.startswith("SIG"):
        os.killpg(process.pid, getattr(signal, how))
    assert process.wait(WATCHDOG_S) != 0
    assert left() <= {"b/demo/conversation.html"}, left()
