"""Children of a run that was killed: found by the folder that they belong to, and only those of this one."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.supervise import orphans
from meshd.supervise.child import IDENTITY, MARK, identity
from tests.supervise.control_groups import is_alive

Start = Callable[..., subprocess.Popen[str]]
Elsewhere = Callable[..., int]

UP = "print('up', flush=True); input()"
# A daemon with one child, in a mount namespace of its own; it tells the child's pid. argv: the state folder.
DAEMON = """
import asyncio, sys
from pathlib import Path
from meshd.supervise.child import Child, Launch

async def run():
    waits = (sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()")
    up = asyncio.Event()
    child = await Child.spawn(Launch(waits, {}, Path(sys.argv[1])), lambda line: up.set())
    await up.wait()
    print(child.pid, flush=True)
    await child.ended.wait()

asyncio.run(run())
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of its own needs root")


def mark(owner: Path) -> dict[str, str]:
    """What a child of this meshd carries."""
    return {MARK: str(owner), IDENTITY: identity(owner)}


def old_mark(owner: Path | str) -> dict[str, str]:
    """What a child of 0.1.0 carries."""
    return {MARK: str(owner)}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that waits, with the given environment."""
    with contextlib.ExitStack() as stack:

        def started(env: dict[str, str], code: str = UP) -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                [sys.executable, "-c", code], env=env, stdin=pipe, stdout=pipe, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"  # only now it is another program than this one
            return process

        yield started


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Starts a child of another meshd with that state folder, in another mount namespace, and returns its pid.

    before: what is done there first, in sh.
    """
    with contextlib.ExitStack() as stack:

        def started(owner: Path, before: str = ":") -> int:
            daemon = shlex.join([sys.executable, "-c", DAEMON, str(owner)])
            process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", f"{before} && exec {daemon}"], stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # its child ends with it
            assert process.stdout is not None
            return int(process.stdout.readline())

        yield started


def pids(owner: Path) -> list[int]:
    return sorted(left.pid for left in orphans.find(owner))


def test_nothing_is_left_of_a_run_that_left_nothing(tmp_path: Path) -> None:
    assert orphans.find(tmp_path) == []
    assert orphans.kill(tmp_path) == []


def test_what_is_left_is_found_with_its_program(tmp_path: Path, start: Start) -> None:
    process = start(mark(tmp_path))
    (left,) = orphans.find(tmp_path)
    assert left.pid == process.pid
    assert left.program.startswith("python")


def test_all_that_is_left_is_ended_and_awaited(tmp_path: Path, start: Start) -> None:
    processes = [start(mark(tmp_path)), start(mark(tmp_path))]
    ended = orphans.kill(tmp_path)
    assert sorted(left.pid for left in ended) == sorted(p.pid for p in processes)
    assert [p.wait(0) for p in processes] == [-9, -9]
    assert orphans.find(tmp_path) == []


def test_one_that_ignores_signals_is_ended(tmp_path: Path, start: Start) -> None:
    process = start(
        mark(tmp_path), "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); input()"
    )
    orphans.kill(tmp_path)
    assert process.wait(0) == -9


@pytest.mark.parametrize("other", ["elsewhere", "own/sub", "ownx", "."])
def test_those_of_another_folder_are_let_be(other: str, tmp_path: Path, start: Start) -> None:
    own = tmp_path / "own"
    for folder in (own, tmp_path / other):
        folder.mkdir(exist_ok=True)
    processes = [start(mark(tmp_path / other)), start(old_mark(tmp_path / other))]
    assert orphans.find(own) == []
    assert orphans.kill(own) == []
    assert [p.poll() for p in processes] == [None, None]


@pytest.mark.parametrize(
    "env", [{}, {MARK: ""}, {MARK: "elsewhere"}, {IDENTITY: ""}, {IDENTITY: "1"}, {f"{IDENTITY}X": "1"}]
)
def test_others_are_let_be(env: dict[str, str], tmp_path: Path, start: Start) -> None:
    process = start(env)
    assert orphans.find(tmp_path) == []
    assert orphans.kill(tmp_path) == []
    assert process.poll() is None


def test_what_a_killed_0_1_0_left_is_ended(tmp_path: Path, start: Start) -> None:
    """After an upgrade: its children carry the folder's path alone."""
    process = start(old_mark(tmp_path))
    assert pids(tmp_path) == [process.pid]
    orphans.kill(tmp_path)
    assert process.wait(0) == -9


def test_what_is_left_is_found_though_the_folder_is_reached_by_another_path(
    tmp_path: Path, start: Start
) -> None:
    process = start(mark(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    assert pids(tmp_path / "link") == [process.pid]


def test_the_children_of_a_folder_that_was_at_this_path_before_are_let_be(
    tmp_path: Path, start: Start
) -> None:
    """It was moved away with its daemon running, and a new one is begun in its place."""
    state = tmp_path / "state"
    state.mkdir()
    process = start(mark(state))
    state.rename(tmp_path / "moved")
    state.mkdir()
    assert orphans.kill(state) == []
    assert pids(tmp_path / "moved") == [process.pid]


@root_only
def test_the_children_of_another_container_with_the_same_path_are_let_be(
    tmp_path: Path, elsewhere: Elsewhere
) -> None:
    """Containers that share one pid namespace see each other's engines, and all have their state at one path."""
    pid = elsewhere(tmp_path, f"mount -t tmpfs none {tmp_path}")
    assert f"{MARK}={tmp_path}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert orphans.find(tmp_path) == []
    assert orphans.kill(tmp_path) == []
    assert is_alive(pid)


@root_only
def test_what_is_left_in_another_mount_namespace_is_ended(tmp_path: Path, elsewhere: Elsewhere) -> None:
    """systemd makes a new one for each start of the unit, and a container that is begun anew on its volume has one."""
    pid = elsewhere(tmp_path)
    assert pids(tmp_path) == [pid]
    orphans.kill(tmp_path)
    assert not is_alive(pid)


@root_only
@pytest.mark.parametrize("place", ["another mount namespace", "another root"])
def test_a_child_of_0_1_0_elsewhere_is_let_be(place: str, tmp_path: Path, start: Start) -> None:
    """Its path says nothing there."""
    inside = tmp_path / "jail" / tmp_path.relative_to("/")
    inside.mkdir(parents=True)
    enter = {
        "another mount namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x20000) == 0",  # CLONE_NEWNS
        "another root": f"import os; os.chroot({str(tmp_path / 'jail')!r})",
    }
    process = start(old_mark(tmp_path), f"{enter[place]}; {UP}")
    assert orphans.find(tmp_path) == []
    assert orphans.kill(tmp_path) == []
    assert process.poll() is None


def test_the_daemon_itself_is_no_leftover_though_it_has_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meshd that some marked child started: environ of a running process cannot be set, so a new one looks."""
    code = (
        "import sys; from pathlib import Path; from meshd.supervise import orphans;"
        "print(orphans.kill(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | mark(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_reused_pid_is_never_taken_for_a_leftover(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the signal the leftover ended, and its pid is somebody else's."""
    innocent = start({})
    seen = orphans.Orphan(innocent.pid, "ipfs")
    monkeypatch.setattr(orphans, "find", lambda owner: [seen])
    assert orphans.kill(tmp_path) == []
    assert innocent.poll() is None


def test_one_that_ended_since_it_was_seen_is_no_fault(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(mark(tmp_path))
    (seen,) = orphans.find(tmp_path)
    process.kill()
    process.wait()
    monkeypatch.setattr(orphans, "find", lambda owner: [seen])
    assert orphans.kill(tmp_path) == []


def test_one_that_does_not_end_is_told(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in uninterruptible sleep, which even SIGKILL does not end; here the signal is lost instead."""
    start(mark(tmp_path))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: None)
    with pytest.raises(
        MeshError, match=r"python.* \(pid \d+\) of a previous run was killed and does not end"
    ) as caught:
        orphans.kill(tmp_path, timeout=0.05)
    assert caught.value.code is Code.BUSY
    assert "ps -o " in caught.value.hint


def test_no_file_descriptor_is_left(tmp_path: Path, start: Start) -> None:
    """Of ten rounds: another thread of the tests may have some open just now."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, rounds = descriptors(), 10
    for _ in range(rounds):
        process = start(mark(tmp_path))
        orphans.kill(tmp_path)
        process.communicate()
    assert descriptors() - before < rounds
