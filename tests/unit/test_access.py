"""Who may use the control socket, by the kernel's word: with real processes at the other end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.config import Control
from meshd.control import access
from meshd.control.access import Caller, Gatekeeper, caller_of
from meshd.errors import Code, MeshError
from meshd.principal import check
from meshd.supervise.cgroups import Cgroups
from tests.supervise.control_groups import name_of, needed, unit

__all__ = ["unit"]  # the fixture

# Connects, and waits in that group, and in a session of its own, until it is told to end.
CALLS = """
import os, socket, sys
from pathlib import Path
if len(sys.argv) > 2:
    os.makedirs(sys.argv[2], exist_ok=True)
    Path(sys.argv[2], "cgroup.procs").write_text("0")
os.setsid()
made = socket.socket(socket.AF_UNIX)
made.connect(sys.argv[1])
sys.stdin.read()
"""
Call = Callable[..., tuple[socket.socket, subprocess.Popen[bytes]]]


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """call(group): a connection, as the daemon has it, and the process that made it."""
    processes: list[subprocess.Popen[bytes]] = []
    connections: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()

        def made(*group: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
            command = [sys.executable, "-c", CALLS, str(tmp_path / "s"), *group]
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))
            connections.append(server.accept()[0])
            return connections[-1], processes[-1]

        yield made
    for connection in connections:
        connection.close()
    for process in processes:
        process.communicate()


def refused(keeper: Gatekeeper, caller: Caller) -> str:
    """Why; "" where it is let in."""
    try:
        check(keeper.identify(caller), "admin")
    except MeshError as exc:
        return exc.detail if exc.code is Code.DENIED else str(exc.code)
    return ""


def keeper(*children: int, groups: Cgroups | None = None) -> Gatekeeper:
    holds = groups.holds if groups is not None else lambda membership: False
    return Gatekeeper(Control(), lambda: children, holds)


A_CHILD = "a program that meshd supervises may not control it"


def test_the_daemons_own_user_is_let_in(call: Call) -> None:
    connection, process = call()
    caller = caller_of(connection)
    assert (caller.pid, caller.uid) == (process.pid, os.geteuid())
    assert refused(keeper(), caller) == ""


def test_what_is_in_a_childs_process_group_is_refused(call: Call) -> None:
    connection, process = call()
    assert refused(keeper(process.pid), caller_of(connection)) == A_CHILD


@needed
@pytest.mark.parametrize("below", ["kubo", "kubo/a/b"])
def test_what_is_in_a_childs_control_group_is_refused_whatever_its_session(
    below: str, call: Call, unit: Path
) -> None:
    groups = Cgroups(unit, name_of(unit))
    groups.of("kubo")
    connection, _ = call(str(unit / below))
    assert refused(keeper(groups=groups), caller_of(connection)) == A_CHILD
    assert refused(keeper(), caller_of(connection)) == "", "and it is the control group that tells"


@needed
@pytest.mark.parametrize("below", ["", "another"])
def test_what_is_elsewhere_in_the_unit_is_let_in(below: str, call: Call, unit: Path) -> None:
    groups = Cgroups(unit, name_of(unit))
    groups.of("kubo")
    connection, _ = call(str(unit / below))
    assert refused(keeper(groups=groups), caller_of(connection)) == ""


def test_who_has_left_the_connection_to_another_and_ended_is_refused(call: Call) -> None:
    """Its pid could be another process's by now, and which group it was in nobody can tell."""
    connection, process = call()
    process.communicate()
    assert refused(keeper(), caller_of(connection)) == "the caller is gone"


def _tells_of_the_end() -> bool:
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, access._SO_PEERPIDFD))
        except OSError:
            return False
        return True


@pytest.mark.skipif(
    not _tells_of_the_end(), reason="Linux before 6.5 does not tell whether the caller has ended"
)
def test_the_pid_of_one_that_has_ended_is_not_looked_up(call: Call) -> None:
    """It may be another process's by now."""
    connection, process = call()
    process.communicate()
    assert caller_of(connection).pid == access._GONE


def test_where_the_kernel_does_not_tell_the_pid_decides(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.5, which does not know the option."""
    monkeypatch.setattr(access, "_SO_PEERPIDFD", 9999)
    connection, process = call()
    assert refused(keeper(), caller_of(connection)) == ""
    assert refused(keeper(process.pid), caller_of(connection)) == A_CHILD
    process.communicate()
    assert refused(keeper(), caller_of(connection)) == "the caller is gone"


def test_a_frozen_caller_is_a_caller(call: Call) -> None:
    connection, process = call()
    process.send_signal(signal.SIGSTOP)
    assert refused(keeper(), caller_of(connection)) == ""
    process.send_signal(signal.SIGCONT)


def test_a_process_that_cannot_be_seen_is_judged_by_its_user() -> None:
    """Another pid namespace has no number here; and ProtectProc= hides other users' processes."""
    uid = os.geteuid()
    assert refused(keeper(), Caller(0, uid, frozenset())) == ""
    other = Caller(access._GONE, uid + 1, frozenset())
    assert refused(keeper(), other) == f"user id {uid + 1} is not in its group"
