"""The tutorial works: each command of it, typed in order into one shell, does what the page says it does."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.console import Shell, Typed, commands
from tests.docs.pages import ROOT, TUTORIAL

COMMAND_S = 240.0  # `make setup` is the longest
_LOCK_PORT = 4011


def _matches(shown: str, printed: str) -> bool:
    return _mask(shown) == _mask(printed)


def _mask(line: str) -> str:
    """A line without what is another on each machine: numbers, the order of nodes, who is first, how wide a table is."""
    words = re.sub(r"\b(attic|cellar|desk)\b(, (attic|cellar|desk)\b)*", "NODE", line)
    words = re.sub(r"/\S*/meshd-tutorial", "HOME", re.sub(r"~/meshd-tutorial", "HOME", words))
    words = re.sub(r"\d+(\.\d+)*", "0", words)
    words = re.sub(r"\b0 (s|min|h|d|days?|ms) ago|\bnow\b|\bjust now\b", "AGO", words)
    return " ".join(words.split())


def missing(typed: Typed, printed: str) -> list[str]:
    """Lines that the page shows and that were not printed, in that order. `...` is any number of lines."""
    left = iter(printed.splitlines())
    return [line for line in typed.shown if line != "..." and not any(_matches(line, one) for one in left)]


@pytest.fixture
def subnet() -> Iterator[str]:
    """The first three numbers of addresses that nobody else uses now."""
    for number in range(1, 250):
        prefix = f"127.51.{number}"
        with socket.socket() as claim:
            try:
                claim.bind((f"{prefix}.254", _LOCK_PORT))  # held while the test runs
                for last in (1, 2, 3):
                    for port in (4001, 4010, 4011, 9096):
                        with socket.socket() as probe:
                            probe.bind((f"{prefix}.{last}", port))
            except OSError:
                continue
            yield prefix
            return
    pytest.fail("every 127.51.x is taken")


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home with a short name: a socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """A stranger's. What this user has downloaded and built is found again, and so is the package index."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MESH", "IPFS_", "GIT_", "MAKE", "VIRTUAL_ENV"))
    }
    cache, settings = Path("~/.cache").expanduser(), Path("~/.config").expanduser()
    return {
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(settings),
        **{k: v for k, v in kept.items() if k != "XDG_RUNTIME_DIR"},
        "HOME": str(home),
        "COLUMNS": "200",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def sources(home: Path, environment: dict[str, str]) -> Path:
    """A repository that holds this checkout as it stands, with what is not committed yet."""
    folder = home / "sources"
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "as it stands"]):
        subprocess.run(["git", *words], cwd=folder, env=environment, check=True)
    return folder


@pytest.fixture
def shell(home: Path, environment: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(home, environment)
    yield shell
    shell.close()


@pytest.mark.mesh
@pytest.mark.timeout(420)
def test_the_tutorial_works(shell: Shell, home: Path, sources: Path, subnet: str) -> None:
    page = commands(TUTORIAL)
    assert len(page) > 30
    for typed in page:
        text = typed.text.replace("127.0.0.", f"{subnet}.")
        if text.startswith("git clone"):
            text = text.replace("ADDRESS", str(sources))
        where = f"{TUTORIAL.name}:{typed.line}: {typed.text}"
        code, printed = shell.type(text, COMMAND_S)
        assert code == 0, f"{where}\n{printed}{_logs(home)}"
        assert not missing(typed, printed), (
            f"{where}\nnot printed: {missing(typed, printed)}\nprinted:\n{printed}"
        )
    assert not (home / "meshd-tutorial").exists(), "the tutorial clears up"


def _logs(home: Path) -> str:
    logs = {log.name: log.read_text().splitlines()[-10:] for log in sorted(home.glob("meshd-tutorial/*.log"))}
    return "".join(f"\n{name}: {line[:300]}" for name, lines in logs.items() for line in lines)


def test_what_is_not_printed_is_seen() -> None:
    typed = Typed("meshctl ls", 1, ["NAME  SIZE", "...", "a.txt  37 B"])
    assert not missing(typed, "NAME SIZE\nb.txt 1 B\na.txt  40 B\n")
    assert missing(typed, "NAME SIZE\n") == ["a.txt  37 B"]
    assert missing(typed, "a.txt 37 B\nNAME SIZE\n") == ["a.txt  37 B"]


def test_a_shell_keeps_what_was_typed_before(home: Path, shell: Shell) -> None:
    assert shell.type("cd / && here=$PWD", 10).code == 0
    assert shell.type('echo "$here"\nfalse', 10) == (1, "/\n")
    assert shell.type("cat", 10) == (0, "")
    assert shell.type("tail -f /dev/null &", 10).code == 0
    assert shell.type("kill %1; wait", 10).code in (0, 143)
