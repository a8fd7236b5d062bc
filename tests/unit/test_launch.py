"""What a child of the daemon may open: it is started by launch.py, as kubo and the cluster are."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.supervise import launch

LAUNCHER = Path(launch.__file__)

TRIES = r"""
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def try_it(make):
    try:
        made = make()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    getattr(made, "close", lambda: None)()
    return "ok"
def raw(*numbers):
    ctypes.set_errno(0)
    if libc.syscall(*(ctypes.c_long(n) for n in numbers)) < 0:
        raise OSError(ctypes.get_errno(), "")
S = socket.socket
INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
more = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
print(json.dumps({
    "tcp": try_it(lambda: S(INET, STREAM)),
    "tcp6": try_it(lambda: S(INET6, STREAM)),
    "tcp, not blocking": try_it(lambda: S(INET, STREAM | more)),
    "unix stream": try_it(lambda: S(UNIX, STREAM)),
    "unix datagram": try_it(lambda: S(UNIX, DGRAM)),
    "unix pair": try_it(lambda: socket.socketpair()[0]),
    "netlink": try_it(lambda: S(socket.AF_NETLINK, RAW, 0)),
    "udp": try_it(lambda: S(INET, DGRAM)),
    "udp6": try_it(lambda: S(INET6, DGRAM)),
    "udp, not blocking": try_it(lambda: S(INET, DGRAM | more)),
    "udp, with odd high bits": try_it(lambda: raw(SOCKET, INET | 1 << 32, DGRAM | 1 << 32, 0)),
    "ping": try_it(lambda: S(INET, DGRAM, socket.IPPROTO_ICMP)),
    "raw": try_it(lambda: S(INET, RAW, socket.IPPROTO_ICMP)),
    "raw6": try_it(lambda: S(INET6, RAW, socket.IPPROTO_ICMPV6)),
    "sctp": try_it(lambda: S(INET, socket.SOCK_SEQPACKET, 132)),
    "sctp as a stream": try_it(lambda: S(INET, STREAM, 132)),
    "packet": try_it(lambda: S(socket.AF_PACKET, RAW)),
    "packet datagram": try_it(lambda: S(socket.AF_PACKET, DGRAM)),
    "io_uring": try_it(lambda: raw(425, 1, 0)),
    "x32 socket": try_it(lambda: raw(0x40000000 + 41, INET, DGRAM, 0)),
    "privileges": open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0],
    "a child of it, udp": os.popen(sys.executable + ' -c "import socket; socket.socket(2, 2)" 2>&1 | tail -1').read(),
}))
"""


def start(*argv: str | Path, parent: int | None = None) -> list[str]:
    ours = os.getpid() if parent is None else parent
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(ours), "--", *map(str, argv)]


@pytest.fixture(scope="module")
def tried() -> dict[str, str]:
    """What became of each attempt of a confined child."""
    command = start(sys.executable, "-c", TRIES)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    result: dict[str, str] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(
    "what", ["tcp", "tcp6", "tcp, not blocking", "unix stream", "unix datagram", "unix pair", "netlink"]
)
def test_what_the_engines_need_is_allowed(what: str, tried: dict[str, str]) -> None:
    assert tried[what] == "ok"


@pytest.mark.parametrize(
    "what",
    ["udp", "udp6", "udp, not blocking", "udp, with odd high bits", "ping", "raw", "raw6", "sctp", "sctp as a stream", "packet",
     "packet datagram"],
)  # fmt: skip
def test_any_other_internet_socket_is_refused(what: str, tried: dict[str, str]) -> None:
    assert tried[what] == "EACCES"


def test_the_way_round_by_io_uring_is_not_there(tried: dict[str, str]) -> None:
    assert tried["io_uring"] == "ENOSYS"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is an ABI of x86")
def test_the_way_round_by_another_abi_is_refused(tried: dict[str, str]) -> None:
    assert tried["x32 socket"] == "EACCES"


def test_it_can_gain_no_privileges(tried: dict[str, str]) -> None:
    assert tried["privileges"] == "1"


def test_what_it_starts_is_confined_too(tried: dict[str, str]) -> None:
    assert "PermissionError" in tried["a child of it, udp"]


def test_the_daemon_itself_is_not_confined() -> None:
    assert json.loads(
        subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True, timeout=60, check=True).stdout
    )["udp"] == "ok"  # fmt: skip


@pytest.mark.parametrize("machine", sorted(launch.ARCHITECTURES))
def test_each_jump_of_the_filter_lands_on_an_instruction(machine: str) -> None:
    code = launch.tcp_only(machine)
    lines = [code[i : i + 8] for i in range(0, len(code), 8)]
    assert len(code) % 8 == 0
    for number, line in enumerate(lines):
        operation, yes, no = line[0], line[2], line[3]
        if operation == launch.EQUAL or operation == launch.AT_LEAST:
            assert number + 1 + max(yes, no) < len(lines)
    assert lines[-1][0] == launch.RETURN


# -- how a start fails ---------------------------------------------------------------------------------------------


def test_a_machine_without_a_filter_runs_nothing() -> None:
    with pytest.raises(KeyError):
        launch.tcp_only("riscv64")


def test_a_program_that_is_not_there_is_told() -> None:
    done = subprocess.run(start("/nowhere/ipfs"), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 127
    assert done.stderr.startswith("cannot start /nowhere/ipfs: ")
    assert "Traceback" not in done.stderr


def test_a_child_whose_daemon_is_gone_already_does_not_start(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    done = subprocess.run(start("/bin/sh", "-c", f": > {mark}", parent=1), timeout=30, check=False)
    assert done.returncode == 1
    assert not mark.exists()


async def test_a_child_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    odd = ["--", "-c", "with space", "üñí", ""]
    show = [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))"]
    child = await asyncio.create_subprocess_exec(*start(*show, *odd), stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        output, _ = await child.communicate()
    assert json.loads(output) == odd


def test_it_dies_with_the_daemon() -> None:
    show = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    done = subprocess.run(
        start(sys.executable, "-c", show), capture_output=True, text=True, timeout=30, check=True
    )
    assert int(done.stdout) == signal.SIGKILL
