"""Cgroups for tests: below the one that the tests run in, and removed after them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.supervise import cgroups
from tests.supervise.programs import python

_NAME = cgroups._unified(Path("/proc/self/cgroup").read_text())


def here() -> Path | None:
    """The folder of the tests' own cgroup, where cgroups can be made below it; else None."""
    if _NAME is None or os.geteuid() != 0:
        return None
    found = cgroups._folders(_NAME, Path("/proc/self/mountinfo").read_text())
    return next((one for one in found if os.access(one, os.W_OK)), None)


needed = pytest.mark.skipif(here() is None, reason="making control groups needs root and cgroup2")


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Path]:
    """A cgroup as systemd makes it for a unit with Delegate=."""
    folder = here()
    assert folder is not None
    made = folder / f"meshd-test-{os.getpid()}-{tmp_path.name}"
    made.mkdir()
    os.setxattr(made, cgroups._DELEGATED, b"1")
    yield made
    (made / "cgroup.kill").write_text("1")
    while "populated 1" in (made / "cgroup.events").read_text():
        os.sched_yield()  # they are killed already; the test's time-out ends a hang
    for one, _, _ in os.walk(made, topdown=False):
        Path(one).rmdir()


def name_of(unit: Path) -> str:
    """The content of /proc/PID/cgroup of a process in it."""
    return f"{(_NAME or '').rstrip('/')}/{unit.name}"


def hides(up: Path, then: str, output: str = "") -> tuple[str, ...]:
    """A program that starts another one, which leaves its session and process group, forgets its environment, hears no
    SIGTERM and lives for ever. `up` holds its pid. then: what the program itself does after that. output: of the other
    one, such as "1>/dev/null"; default: that of the program."""
    other = (
        f"trap '' TERM HUP; echo $$ > {up}.new; mv {up}.new {up}; while :; do read -r _ < {up}.quiet; done"
    )
    return python(
        "import os, signal, sys, time\n"
        f"os.mkfifo({str(up) + '.quiet'!r})\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execve('/bin/sh', ['sh', '-c', {f'exec {output}; {other}' if output else other!r}], {{}})\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        f"while not os.path.exists({str(up)!r}): time.sleep(0.01)\n" + then
    )


def is_alive(pid: int) -> bool:
    """Whether it runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
