"""make install PREFIX=…, and then a stranger's program: pkg-config, a compiler, a store."""
import os
import shutil
import subprocess

import pytest
from harness import BUILD, ROOT, environment

MAN_PAGES = sorted(path.name[:-3] for path in (ROOT / "docs" / "man").glob("*.[1-8].md"))


@pytest.fixture(scope="module")
def prefix(module_work):
    for tool in ("make", "meson", "ninja"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "LD_PRELOAD")}
    done = subprocess.run(["make", "install", f"BUILD={BUILD}", f"PREFIX={module_work}/p"], cwd=ROOT, env=env, capture_output=True,
                          check=False)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return module_work / "p"


def of_pkg_config(prefix, *args):
    folders = ":".join(str(path.parent) for path in prefix.rglob("libheadrace.pc"))
    done = subprocess.run(["pkg-config", *args, "libheadrace"], env=environment({"PKG_CONFIG_PATH": folders}), capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().split()


@pytest.mark.slow
def test_what_is_installed(prefix):
    there = {path.name for path in prefix.rglob("*")}
    wanted = {"headrace", "headraced", "libheadrace.so", "libheadrace.so.0", "libheadrace.pc", "headraced.service", "_headrace"}
    assert wanted <= there, wanted - there
    if shutil.which("pandoc") is not None:
        assert set(MAN_PAGES) <= there, set(MAN_PAGES) - there


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [["cc", "-std=c11"], ["c++", "-std=c++17", "-x", "c++"]], ids=["C11", "C++"])
def test_program(prefix, work, compiler):
    """The example of the README, in C and in C++, against the installation alone."""
    if shutil.which(compiler[0]) is None or shutil.which("pkg-config") is None:
        pytest.skip(f"no {compiler[0]} or no pkg-config")
    subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", ROOT / "examples" / "hello.c", "-x", "none", "-o",
                    work / "hello", *of_pkg_config(prefix, "--cflags", "--libs")], check=True)
    libraries = of_pkg_config(prefix, "--variable=libdir")[0]
    done = subprocess.run([work / "hello"], capture_output=True, timeout=120, check=False,
                          env=environment({"LD_LIBRARY_PATH": libraries, "HEADRACE_URL": f"file:{work}/image?size=64MiB"}))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello, headrace\n", b"")
