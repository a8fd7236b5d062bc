"""What the tests ask the kernel (tests/processes.py, tests/sockets.py), of sockets and processes of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import sockets
from tests.processes import descendants, held_by
from tests.sockets import Open, table

HERE = "127.11.5.1"


def inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


@pytest.fixture
def opened() -> Iterator[dict[str, socket.socket]]:
    """A socket of each kind that the sampler is to see, by what it is."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context
        listens = here(socket.create_server((HERE, 0)))
        both = here(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        calls = here(socket.create_connection(listens.getsockname(), source_address=(HERE, 0)))
        calls_6 = here(socket.create_connection((HERE, both.getsockname()[1]), source_address=(HERE, 0)))
        answers_6 = here(both.accept()[0])
        udp = here(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind((HERE, 0))
        made = {
            "listens": listens,
            "listens on all": both,
            "calls": calls,
            "calls one that listens on all": calls_6,
            "answers as IPv6": answers_6,
            "udp": udp,
        }
        if os.geteuid() == 0:
            made["raw"] = here(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        yield made


def listens(one: socket.socket) -> Open:
    address, port, *_ = one.getsockname()
    return Open("tcp", address, port, True, "")


def calls(one: socket.socket) -> Open:
    (address, port), (remote, remote_port) = one.getsockname(), one.getpeername()
    return Open("tcp", address, port, False, remote, remote_port)


def expected(opened: dict[str, socket.socket]) -> dict[str, Open]:
    answers = opened["answers as IPv6"]
    found = {
        "listens": listens(opened["listens"]),
        "listens on all": listens(opened["listens on all"]),
        "calls": calls(opened["calls"]),
        "calls one that listens on all": calls(opened["calls one that listens on all"]),
        "answers as IPv6": Open("tcp", HERE, answers.getsockname()[1], False, HERE, answers.getpeername()[1]),
        "udp": Open("udp", HERE, opened["udp"].getsockname()[1], False, ""),
    }
    if "raw" in opened:
        found["raw"] = Open("raw", "0.0.0.0", socket.IPPROTO_ICMP, False, "")
    return found


def seen(opened: dict[str, socket.socket], found: sockets.Table) -> dict[str, Open]:
    return {what: found[inode(one)] for what, one in opened.items() if inode(one) in found.inodes()}


@pytest.fixture(params=["asked", "read"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has all of sock_diag, and one whose tables must be read."""
    if request.param == "read":
        for kind in sockets._KINDS:
            monkeypatch.setitem(sockets._KINDS, kind, 252)  # a protocol that no kernel has


@pytest.mark.usefixtures("_kernel")
def test_each_socket_is_seen_as_what_it_is(opened: dict[str, socket.socket]) -> None:
    assert seen(opened, table()) == expected(opened)


@pytest.mark.usefixtures("_kernel")
def test_without_what_is_connected_all_others_are_there(opened: dict[str, socket.socket]) -> None:
    wanted = {what: one for what, one in expected(opened).items() if one.kind != "tcp" or one.listening}
    assert seen(opened, table(connected=False)) == wanted


@pytest.mark.usefixtures("_kernel")
def test_what_nobody_has_accepted_or_holds_any_more_is_not_there(opened: dict[str, socket.socket]) -> None:
    """The other end of a call stands in the table from the first packet on, of nobody."""
    assert 0 not in table().inodes()
    gone = inode(opened["calls"])
    opened["calls"].close()
    assert gone not in table().inodes()


def test_what_a_process_holds(opened: dict[str, socket.socket]) -> None:
    mine = {inode(one) for one in opened.values()}
    assert mine <= held_by(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert mine.isdisjoint(held_by(other.pid)), "it inherits none"
        other.communicate(b"")
    assert held_by(other.pid) == set(), "it is gone"


STARTS_ANOTHER = (
    "import subprocess, sys, threading\n"
    "def start():\n"
    "    with subprocess.Popen([sys.executable, '-c', 'print(flush=True); input()']) as other:\n"
    "        print(other.pid, flush=True); other.wait()\n"
    "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
)


def test_the_descendants_are_children_and_theirs_whichever_thread_started_them() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ANOTHER], stdin=pipe, stdout=pipe, text=True
    ) as child:
        assert child.stdout is not None
        lines = sorted(child.stdout.readline() for _ in range(2))
        assert descendants(child.pid) == [int(lines[-1])]
        assert {child.pid, int(lines[-1])} <= set(descendants(os.getpid()))
        child.communicate("\n")
    assert descendants(child.pid) == []
