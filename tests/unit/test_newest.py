"""Which Python `make test-newest` takes, by what is on a machine of its own: made-up interpreters, and no network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
Have = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH and a home; its uv can fetch nothing, but for what is put into `given`."""
    for name in ("bin", "home"):
        (tmp_path / name).mkdir()
    for program in (
        "bash",
        "cat",
        "cut",
        "dirname",
        "grep",
        "head",
        "mktemp",
        "rm",
        "sed",
        "sort",
        "tail",
        "timeout",
    ):
        (tmp_path / "bin" / program).symlink_to(f"/usr/bin/{program}")
    write(tmp_path / "bin" / "uv", 'echo asked >>"$HOME/uv-asked"; echo "no network" >&2; exit 1')
    return tmp_path


def write(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def python(path: Path, version: str, *, level: str = "final", implementation: str = "cpython") -> Path:
    """A stand-in: this interpreter, which takes itself for another one."""
    numbers = ", ".join(version.split("."))
    lie = (
        "import sys, types; from collections import namedtuple; "
        "info = namedtuple('V', 'major minor micro releaselevel serial'); "
        f"sys.version_info = info({numbers}, '{level}', 0); "
        f"sys.implementation = types.SimpleNamespace(**vars(sys.implementation) | dict(name='{implementation}'))"
    )
    return write(path, f'exec {sys.executable} -I -c "{lie}\n$3"')


def find(machine: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(machine / "bin"), "HOME": str(machine / "home")} | environment
    script = ROOT / "scripts" / "newest.sh"
    return subprocess.run(
        [script, "--find"], env=env, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_newest_of_all_places_is_taken(machine: Path) -> None:
    places = [
        machine / "bin" / "python3.13",
        machine / "home" / ".pyenv" / "versions" / "3.15.2" / "bin" / "python3",
        machine / "home" / ".local" / "share" / "uv" / "python" / "cpython-3.14.9-linux" / "bin" / "python3",
    ]
    for place, version in zip(places, ("3.13.10", "3.13.9", "3.13.2"), strict=True):
        python(place, version)
    assert find(machine).stdout.strip() == str(places[0]), "by its number, and not by its spelling"
    python(places[2], "3.14.0")
    assert find(machine).stdout.strip() == str(places[2])
    python(places[1], "3.100.0")
    assert find(machine).stdout.strip() == str(places[1])
    assert not (machine / "home" / "uv-asked").exists(), "nothing is fetched where one is there"


@pytest.mark.parametrize(
    "other",
    [
        {"version": "3.12.9"},
        {"version": "3.15.0", "level": "candidate"},
        {"version": "3.14.0", "implementation": "pypy"},
    ],
    ids=["too-old", "not-released", "not-CPython"],
)
def test_where_none_is_new_enough_it_says_so_and_ends_well(machine: Path, other: dict[str, str]) -> None:
    python(machine / "bin" / "python3", **other)
    done = find(machine)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("newest: no Python 3.13 or newer is here, and uv gives none (no network)")


def test_one_that_does_not_run_is_passed_over(machine: Path) -> None:
    write(machine / "bin" / "python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
    assert "no Python 3.13 or newer is here" in find(machine).stdout


def test_what_uv_fetches_is_taken(machine: Path) -> None:
    made = python(machine / "given", "3.14.1")
    to = machine / "home" / ".local" / "share" / "uv" / "python" / "cpython-3.14.1-linux" / "bin"
    write(
        machine / "bin" / "uv",
        f'[[ "$1 $2" == "python install" ]] && /bin/mkdir -p {to} && /bin/cp {made} {to}/python3',
    )
    assert find(machine).stdout.strip() == str(to / "python3")


def test_a_named_one_is_taken_or_refused(machine: Path) -> None:
    python(machine / "bin" / "python3.14", "3.14.0")
    named = python(machine / "named", "3.13.0")
    assert find(machine, PYTHON=str(named)).stdout.strip() == str(named)
    old = python(machine / "old", "3.12.0")
    done = find(machine, PYTHON=str(old))
    assert done.returncode == 1
    assert "cannot test on the newest Python" in done.stderr
