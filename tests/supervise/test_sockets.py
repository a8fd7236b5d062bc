"""What the kernel says about sockets: of a process, of a port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from meshd.errors import Code, MeshError
from meshd.supervise.sockets import InetSocket, check_free, count_listeners, leaks, of_process

HERE = "127.11.4.1"
ELSEWHERE = "127.11.4.2"


def listener(address: str = HERE, port: int = 0, *, shared: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    made.listen()
    return made


def port_of(made: socket.socket) -> int:
    port: int = made.getsockname()[1]
    return port


@pytest.fixture
def free_port() -> int:
    with listener() as made:
        return port_of(made)


# -- of a process --------------------------------------------------------------------------------------------------

HOLDS = f"""
import socket
tcp = socket.create_server(("{HERE}", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("{HERE}", 0))
client = socket.create_connection(tcp.getsockname())
local = socket.socketpair()
print(tcp.getsockname()[1], udp.getsockname()[1], flush=True)
input()
"""


@contextlib.contextmanager
def holder() -> Iterator[tuple[int, int, int]]:
    """A process with some sockets: its pid, its TCP port, its UDP port."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        tcp, udp = map(int, process.stdout.readline().split())
        yield process.pid, tcp, udp
        process.kill()


def test_every_internet_socket_of_a_process_is_seen() -> None:
    with holder() as (pid, tcp, udp):
        found = of_process(pid)
        assert InetSocket(tcp=True, address=HERE, port=tcp, listening=True) in found
        assert InetSocket(tcp=False, address=HERE, port=udp, listening=False) in found
        assert [s.remote for s in found if s.tcp and not s.listening] == [HERE]
        assert len(found) == 3
        assert [str(leak) for leak in leaks(found, HERE, tcp)] == [f"UDP {HERE}:{udp}"]


def test_a_process_that_is_gone_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert of_process(process.pid) == []


# -- leaks ---------------------------------------------------------------------------------------------------------


def tcp(address: str, port: int = 4001, *, listening: bool = True) -> InetSocket:
    return InetSocket(tcp=True, address=address, port=port, listening=listening)


@pytest.mark.parametrize(
    ("found", "leaks_it"),
    [
        (tcp("10.0.0.1"), False),
        (tcp("10.0.0.1", 4002), True),
        (tcp("10.0.0.2"), True),
        (tcp("127.0.0.1"), True),
        (tcp("0.0.0.0"), True),
        (tcp("::"), True),
        (tcp("10.0.0.1", 50000, listening=False), False),
        (tcp("192.168.1.5", 50000, listening=False), False),
        (InetSocket(tcp=False, address="10.0.0.1", port=4001, listening=False), True),
        (InetSocket(tcp=False, address="0.0.0.0", port=0, listening=False), True),
    ],
    ids=str,
)
def test_only_the_one_listener_on_the_overlay_is_no_leak(found: InetSocket, leaks_it: bool) -> None:
    assert leaks([found], "10.0.0.1", 4001) == ([found] if leaks_it else [])


def test_addresses_are_compared_as_addresses_not_as_text() -> None:
    assert leaks([tcp("fd00:0:0:0::1")], "fd00::1", 4001) == []


def test_a_socket_without_an_address_yet_is_no_reason_to_fall_over() -> None:
    unbound = InetSocket(tcp=True, address="", port=0, listening=False)
    assert leaks([unbound], "10.0.0.1", 4001) == []


# -- before a start ------------------------------------------------------------------------------------------------


def test_a_free_port_is_free_and_stays_so(free_port: int) -> None:
    check_free(HERE, free_port, "kubo's swarm")
    with listener(HERE, free_port):
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_told_with_its_holder_even_where_it_could_be_shared(shared: bool) -> None:
    with listener(shared=shared) as other:
        port = port_of(other)
        with pytest.raises(MeshError) as caught:
            check_free(HERE, port, "kubo's swarm")
    error = caught.value
    assert error.code is Code.BUSY
    assert error.title == f"cannot use port {port} on {HERE} for kubo's swarm"
    assert f"(pid {os.getpid()}) listens there" in error.detail
    assert "[ports]" in error.hint


def test_a_port_that_is_used_on_every_address_is_in_use() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        with pytest.raises(MeshError) as caught:
            check_free(HERE, port_of(other), "the cluster")
    assert caught.value.code is Code.BUSY
    assert "listens there" in caught.value.detail


def test_the_same_port_on_another_address_is_free() -> None:
    with listener(ELSEWHERE) as other:
        check_free(HERE, port_of(other), "kubo's swarm")


def test_a_connection_that_has_just_ended_is_no_obstacle() -> None:
    with socket.create_server((HERE, 0)) as server:  # with SO_REUSEADDR, as every Go program sets it
        port = port_of(server)
        with socket.create_connection((HERE, port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # this end first: it is the one in TIME_WAIT
            client.recv(1)
    check_free(HERE, port, "kubo's swarm")


def test_an_address_that_is_not_here_is_no_overlay() -> None:
    with pytest.raises(MeshError) as caught:
        check_free("10.255.255.254", 4001, "kubo's swarm")
    assert caught.value.code is Code.NO_OVERLAY


# -- while running -------------------------------------------------------------------------------------------------


def test_the_listeners_of_a_port_are_counted(free_port: int) -> None:
    assert count_listeners(HERE, free_port) == 0
    with listener(HERE, free_port, shared=True):
        assert count_listeners(HERE, free_port) == 1
        with listener(HERE, free_port, shared=True):
            assert count_listeners(HERE, free_port) == 2
    assert count_listeners(HERE, free_port) == 0


def test_those_of_another_process_are_counted_too() -> None:
    with holder() as (_, port, _udp):
        assert count_listeners(HERE, port) == 1


def test_connections_and_other_addresses_are_not_counted() -> None:
    with listener() as server:
        port = port_of(server)
        with socket.create_connection((HERE, port)), listener(ELSEWHERE, port):
            assert count_listeners(HERE, port) == 1
            assert count_listeners(ELSEWHERE, port) == 1
            assert count_listeners("127.11.4.3", port) == 0


def test_version_6_of_the_protocol_is_counted_too() -> None:
    try:
        made = listener("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with made:
        assert count_listeners("::1", port_of(made)) == 1
        assert count_listeners("fd00::1", port_of(made)) == 0
