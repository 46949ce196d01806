"""The documents against the source and the programs: links lead somewhere, examples compile, nothing exported is without a page."""
import re
import shutil
import subprocess

import libheadrace
import pytest
from harness import BUILD, ROOT, environment, program

PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md", "bench/*.md", "packaging/*.md") for path in ROOT.glob(pattern))
HEADERS = sorted((ROOT / "include" / "headrace").glob("*.h"))
MAN = ROOT / "docs" / "man"


def test_there_are_pages():
    names = {str(path.relative_to(ROOT)) for path in PAGES}
    assert names >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/threads.md", "docs/format/README.md",
                     "docs/protocol/README.md", "docs/protocol/one-sided.md", "docs/ops/README.md", "docs/man/headrace.1.md",
                     "docs/man/headraced.8.md", "docs/man/headraced.yaml.5.md", "docs/man/libheadrace.3.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    """Relative links exist, and so does every file of the source that a page names."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for named in re.findall(r"`((?:src|include|tests|docs|bench|scripts|packaging|examples)/[\w./-]+\w)`", text):
        assert (ROOT / named).exists(), f"{page.name} names {named}"


def test_every_room_is_in_the_architecture():
    """A newcomer gets from docs/architecture.md to any file in two hops: its folder, or itself, is named there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder in sorted((ROOT / "src").iterdir()):
        assert f"(../src/{folder.name})" in text, f"src/{folder.name} is not in docs/architecture.md"
    for header in sorted((ROOT / "src").glob("*/*.h")):
        first = header.read_text().split("\n", 1)[0]
        assert re.match(rf"/\* {re.escape(header.name)} [-—] \S", first), f"{header}: its first line says what it is: {first!r}"


def exported():
    names = set()
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        names |= set(re.findall(r"\b(hr_\w+)\(", text))
    return names


def test_every_call_has_a_page():
    """Each exported call is in the NAME section of a page of section 3, and no page has one that does not exist."""
    calls = exported()
    assert len(calls) > 30 and calls == set(libheadrace._CALLS), calls ^ set(libheadrace._CALLS)
    named = {}
    for page in MAN.glob("*.3.md"):
        text = page.read_text()
        for name in re.findall(r"\bhr_\w+", re.search(r"# NAME\n+(.*?)\n\n", text, re.DOTALL).group(1)):
            named[name] = page
            declared = re.search(rf"\b{name}\(.*?;", text.replace("\\", "").replace("\n", " "))
            assert declared, f"{page.name}: {name} is not in its SYNOPSIS"
    assert set(named) == calls, set(named) ^ calls


def test_prototypes_of_the_pages():
    """The SYNOPSIS of each page is what the headers declare."""
    source = " ".join(re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL) for header in HEADERS)
    source = re.sub(r"\s+", " ", re.sub(r"\bHR_API\b ?", "", source)).replace("( ", "(")
    for page in MAN.glob("*.3.md"):
        for line in re.findall(r"^(?:\| )?\*\*(.*\);)\*\*$", page.read_text(), re.MULTILINE):
            prototype = line.replace("\\", "")
            assert prototype in source, f"{page.name}: {prototype}"


def test_every_error_has_a_line():
    text = (MAN / "hr_strerror.3.md").read_text()
    table = re.findall(r"X\((HR_E\w+), (\d+), \"(.*?)\"\)", (ROOT / "include/headrace/error.h").read_text())
    assert len(table) > 10
    for name, value, words in table:
        assert f"| **{name}** | {value} | {words} |" in text, name


def test_man_pages_convert(tmp_path):
    if shutil.which("pandoc") is None:
        pytest.skip("no pandoc")
    done = subprocess.run(["scripts/man.sh", tmp_path], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name[:-3] for path in MAN.glob("*.[1-8].md")}
    for page in tmp_path.iterdir():
        left = re.search(r"(?<!\w)_[A-Z]+_(?!\w)", page.read_text())
        assert not left, f"{page.name}: {left.group(0)} is not emphasis to pandoc: a word's end is next to it"


def test_example_of_the_readme():
    """The C program of the README is examples/hello.c, word for word."""
    shown = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    assert (ROOT / "examples" / "hello.c").read_text().endswith(shown)


@pytest.mark.parametrize("source", sorted((ROOT / "examples").glob("*.c")), ids=lambda path: path.name)
def test_examples_compile(source):
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-I{ROOT}/include", "-fsyntax-only", source], check=True)


def need_programs():
    if not (BUILD / "headrace").exists() or not (BUILD / "headraced").exists():
        pytest.skip("headrace and headraced are not built")


def test_example_runs(work, start_daemon):
    need_programs()
    subprocess.run(["cc", "-std=c11", f"-I{ROOT}/include", "-o", work / "hello", ROOT / "examples" / "hello.c", f"-L{BUILD}", "-lheadrace",
                    f"-Wl,-rpath,{BUILD}"], check=True)
    done = subprocess.run([work / "hello"], capture_output=True, timeout=120, check=False,
                          env=environment({"HEADRACE_URL": f"file:{work}/image?size=64MiB"}))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello, headrace\n", b"")


def test_command_line_is_in_its_page():
    """Every command and option that --help tells is in headrace(1), and every option of that page exists."""
    need_programs()
    text = (MAN / "headrace.1.md").read_text()
    lines = subprocess.run([program("headrace"), "help"], capture_output=True, check=True).stdout.decode()
    commands = re.findall(r"^  (\w+)  +\w", lines, re.MULTILINE)
    assert len(commands) >= 14
    known = {"--help", "--version"}
    for command in commands:
        section = re.search(rf"^## {command}\b.*?(?=^## |^# |\Z)", text, re.DOTALL | re.MULTILINE)
        assert section, f"{command} has no section"
        told = subprocess.run([program("headrace"), command, "--help"], capture_output=True, check=True).stdout.decode()
        options = set(re.findall(r"^\s+(?:-\w, )?(--[a-z0-9-]+)", told.split("options:", 1)[1].split("examples:")[0], re.MULTILINE)) - {"--help"}
        for option in options:
            assert f"**{option}**" in section.group(0) or f"**{option}**" in text.split("# COMMON OPTIONS")[-1], f"{command} {option}"
        known |= options
    for option in re.findall(r"\*\*(--[a-z0-9-]+)\*\*", text):
        assert option in known or option == "--no-", f"{option} does not exist"


def test_daemon_options_are_in_their_pages():
    """Every option of headraced --help is in headraced(8) and, as a key, in headraced.yaml(5); neither has one that does not exist."""
    need_programs()
    told = subprocess.run([program("headraced"), "--help"], capture_output=True, check=True).stdout.decode()
    options = set(re.findall(r"^\s+(?:-\w, )?--(?:\[no-\])?([a-z0-9-]+)", told, re.MULTILINE)) - {"help", "version"}
    assert len(options) > 8
    page, keys = ((MAN / name).read_text().replace("\\-", "-") for name in ("headraced.8.md", "headraced.yaml.5.md"))
    only_command_line = {"config", "check-config", "print-config"}
    for option in options:
        assert f"**--{option}**" in page, f"headraced.8: --{option}"
        if option not in only_command_line:
            assert f"**{option.replace('-', '_')}**" in keys, f"headraced.yaml.5: {option}"
    assert {name for name in re.findall(r"^\*\*--([a-z0-9-]+)\*\*", page, re.MULTILINE)} - {"help", "version"} <= options
