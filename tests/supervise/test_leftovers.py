"""Children of a run that was killed: found by their mark, and only those of this folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.supervise import leftovers
from meshd.supervise.child import MARK

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that waits, marked as a child of the given folder."""
    with contextlib.ExitStack() as stack:

        def started(
            owner: Path | str | None, code: str = "print('up', flush=True); input()"
        ) -> subprocess.Popen[str]:
            env = {} if owner is None else {MARK: str(owner)}
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


def pids(owner: Path) -> list[int]:
    return sorted(left.pid for left in leftovers.find(owner))


def test_nothing_is_left_of_a_run_that_left_nothing(tmp_path: Path) -> None:
    assert leftovers.find(tmp_path) == []
    assert leftovers.kill(tmp_path) == []


def test_what_is_left_is_found_with_its_program(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path)
    (left,) = leftovers.find(tmp_path)
    assert left.pid == process.pid
    assert left.program.startswith("python")


def test_all_that_is_left_is_ended_and_awaited(tmp_path: Path, start: Start) -> None:
    processes = [start(tmp_path), start(tmp_path)]
    ended = leftovers.kill(tmp_path)
    assert sorted(left.pid for left in ended) == sorted(p.pid for p in processes)
    assert [p.wait(0) for p in processes] == [-9, -9]
    assert leftovers.find(tmp_path) == []


def test_one_that_ignores_signals_is_ended(tmp_path: Path, start: Start) -> None:
    process = start(
        tmp_path, "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); input()"
    )
    leftovers.kill(tmp_path)
    assert process.wait(0) == -9


@pytest.mark.parametrize("other", [None, "elsewhere", "{}/sub", "{}x", ""])
def test_others_are_let_be(other: str | None, tmp_path: Path, start: Start) -> None:
    process = start(other if other is None else other.format(tmp_path))
    assert leftovers.find(tmp_path) == []
    assert leftovers.kill(tmp_path) == []
    assert process.poll() is None


def test_the_daemon_itself_is_no_leftover_though_it_has_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meshd that some marked child started: environ of a running process cannot be set, so a new one looks."""
    code = (
        "import sys; from pathlib import Path; from meshd.supervise import leftovers;"
        "print(leftovers.kill(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {MARK: str(tmp_path)},
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
    innocent = start(None)
    seen = leftovers.Leftover(innocent.pid, "ipfs")
    monkeypatch.setattr(leftovers, "find", lambda owner: [seen])
    assert leftovers.kill(tmp_path) == []
    assert innocent.poll() is None


def test_one_that_ended_since_it_was_seen_is_no_fault(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tmp_path)
    (seen,) = leftovers.find(tmp_path)
    process.kill()
    process.wait()
    monkeypatch.setattr(leftovers, "find", lambda owner: [seen])
    assert leftovers.kill(tmp_path) == []


def test_one_that_does_not_end_is_told(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in uninterruptible sleep, which even SIGKILL does not end; here the signal is lost instead."""
    start(tmp_path)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda fd, number: None)
    with pytest.raises(
        MeshError, match=r"python.* \(pid \d+\) of a previous run was killed and does not end"
    ) as caught:
        leftovers.kill(tmp_path, timeout=0.05)
    assert caught.value.code is Code.BUSY
    assert "ps -o " in caught.value.hint


def test_no_file_descriptor_is_left(tmp_path: Path, start: Start) -> None:
    """Of ten rounds: another thread of the tests may have some open just now."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, rounds = descriptors(), 10
    for _ in range(rounds):
        process = start(tmp_path)
        leftovers.kill(tmp_path)
        process.communicate()
    assert descriptors() - before < rounds
