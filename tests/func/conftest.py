"""Fixtures of the functional tests: see README.md in this folder."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
for folder in (HERE, ROOT / "tests" / "trace_sim", ROOT / "tests" / "data"):
    sys.path.insert(0, str(folder))

import harness  # noqa: E402
import libheadrace  # noqa: E402


# Those that need no program.
WITHOUT_PROGRAMS = {"test_trace_sim", "test_identity_page", "test_placement", "test_docs"}


def pytest_collection_modifyitems(config, items):
    """Nothing runs without what it tests; what is marked traces or soak runs only when it is asked for by -m."""
    missing = [name for name in ("headraced", "headrace", "libheadrace.so") if not Path(harness.program(name)).exists()]
    for item in items:
        if missing and item.module.__name__ not in WITHOUT_PROGRAMS:
            item.add_marker(pytest.mark.skip(reason=f"not built: {', '.join(missing)} (HEADRACE_BUILD names the build folder)"))
    if config.getoption("-m"):
        return
    for item in items:
        for mark, how in (("traces", "make check-traces"), ("soak", "pytest -m soak")):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"runs in {how}"))


@pytest.fixture(scope="session")
def trace_file():
    """The path of a file of the traces' folder ($HEADRACE_TRACES, or shared/traces beside the repository)."""
    named = os.environ.get("HEADRACE_TRACES")
    folders = [Path(named)] if named else [ROOT / "shared" / "traces", ROOT.parent / "shared" / "traces"]

    def find(name):
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} is in none of {', '.join(map(str, folders))}; HEADRACE_TRACES names its folder")

    return find


@pytest.fixture
def work():
    """A short-named folder on a real file system, gone after the test whatever happened (images are large)."""
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_work():
    path = Path(tempfile.mkdtemp(prefix="hr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _daemons():
    started = []

    def start(folder, devices, start=True, **keywords):
        daemon = harness.Daemon(folder, devices, **keywords)
        started.append(daemon)
        return daemon.start() if start else daemon

    try:
        yield start
        for daemon in started:
            daemon.stop()
    finally:
        for daemon in started:
            if daemon.running():
                daemon.kill()
    for daemon in started:
        daemon.check_log()


@pytest.fixture
def start_daemon():
    """start_daemon(folder, devices, ...) -> harness.Daemon that is ready; stopped, and its log looked through, after the test."""
    yield from _daemons()


@pytest.fixture(scope="module")
def start_module_daemon():
    yield from _daemons()


@pytest.fixture(scope="module")
def node(module_work, start_module_daemon):
    """One daemon for the tests of a module that do no harm to each other: 256 MiB in two shards."""
    image = module_work / "image"
    harness.format_image(image, 256 * harness.MIB, shards=2)
    return start_module_daemon(module_work, [image])


@pytest.fixture(scope="module")
def store_url(request):
    """A URL for tests that only use a store: HEADRACE_TEST_URL's, or a daemon of our own."""
    named = os.environ.get("HEADRACE_TEST_URL")
    return named or request.getfixturevalue("node").tcp


@pytest.fixture(params=["tcp", "unix", "file"])
def any_url(request, work, start_daemon):
    """A fresh store of 128 MiB over each transport."""
    if request.param == "file":
        return f"file:{work}/image?size=128MiB&dram=32MiB"
    image = work / "image"
    harness.format_image(image, 128 * harness.MIB)
    return start_daemon(work, [image], dram="32MiB").url(request.param)


@pytest.fixture
def connect():
    """connect(url, ...) -> libheadrace.Client, closed after the test."""
    clients = []

    def opened(url, **keywords):
        client = libheadrace.Client(url, **keywords)
        clients.append(client)
        return client

    yield opened
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def nouring(tmp_path_factory):
    """The path of a wrapper that runs a program with io_uring_setup refused and a memory-lock limit of 64 KiB."""
    path = tmp_path_factory.mktemp("nouring") / "nouring"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", path, HERE / "nouring.c"], check=True)
    return str(path)
