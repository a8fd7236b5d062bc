"""The kernel's socket table: a process's Internet sockets, and who holds a port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from meshd.errors import Code, MeshError

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound


@dataclass(frozen=True, slots=True)
class InetSocket:
    """One AF_INET or AF_INET6 socket. remote: the peer's address; empty for one that is not connected."""

    tcp: bool
    address: str
    port: int
    listening: bool
    remote: str = ""

    def __str__(self) -> str:
        kind = "TCP" if self.tcp else "UDP"
        return f"{kind} {self.address}:{self.port}{' listening' if self.listening else ''}"


def of_process(pid: int) -> list[InetSocket]:
    """Every Internet socket that `pid` holds, from /proc; none once it has exited. Blocks for some milliseconds.

    Raises MeshError DENIED where the kernel refuses it.
    """
    try:
        connections = psutil.Process(pid).net_connections(kind="inet")
    except psutil.NoSuchProcess:
        return []
    except psutil.AccessDenied as exc:
        raise MeshError(Code.DENIED, f"cannot see the sockets of process {pid}", str(exc)) from exc
    return [
        InetSocket(
            tcp=c.type == socket.SOCK_STREAM,
            address=getattr(c.laddr, "ip", ""),
            port=getattr(c.laddr, "port", 0),
            listening=c.status == psutil.CONN_LISTEN,
            remote=getattr(c.raddr, "ip", ""),
        )
        for c in connections
    ]


def leaks(sockets: list[InetSocket], address: str, port: int) -> list[InetSocket]:
    """The sockets that a child may not have: anything but TCP, and any listener but `address`:`port`. Pure."""
    own = ipaddress.ip_address(address)
    return [
        s
        for s in sockets
        if not s.tcp or (s.listening and (ipaddress.ip_address(s.address) != own or s.port != port))
    ]


def check_free(address: str, port: int, what: str) -> None:
    """Check that a port can be bound without SO_REUSEPORT, and release it again.

    libp2p listens with SO_REUSEPORT: a second kubo on the same port starts without an error and takes half of the
    connections (measured). Raises MeshError BUSY that names the holder, or NO_OVERLAY where no interface has it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a previous run in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise MeshError(
                    Code.NO_OVERLAY, f"cannot listen on {address}", "the address is not on this machine"
                ) from exc
            raise MeshError(
                Code.BUSY,
                f"cannot use port {port} on {address} for {what}",
                f"{holder(address, port) or exc.strerror or exc}",
                f"stop that program, or choose another port in [ports] of the configuration (ss -ltnp 'sport = :{port}')",
            ) from exc


def holder(address: str, port: int) -> str:
    """Who listens on `port`, for a person: `kubo (pid 123) listens there`. Empty where this user may not see it."""
    with contextlib.suppress(psutil.Error):
        for c in psutil.net_connections(kind="tcp"):
            ip, used = getattr(c.laddr, "ip", ""), getattr(c.laddr, "port", 0)
            if c.status == psutil.CONN_LISTEN and used == port and ip in (address, *_EVERYWHERE):
                if c.pid is None:
                    return "another user's program listens there"
                return f"{psutil.Process(c.pid).name()} (pid {c.pid}) listens there"
    return ""


def count_listeners(address: str, port: int) -> int:
    """How many sockets of this network namespace listen on `address`:`port`, of any owner.

    More than one means that another program shares the port by SO_REUSEPORT and takes half of the connections.
    """
    ip = ipaddress.ip_address(address)
    words = ip.packed if ip.version == 4 else b"".join(ip.packed[i : i + 4] for i in range(0, 16, 4))
    raw = b"".join(
        words[i : i + 4][::-1] for i in range(0, len(words), 4)
    )  # the kernel prints 32-bit words in host byte order
    wanted = f"{raw.hex().upper()}:{port:04X}"
    table = Path("/proc/net/tcp6" if ip.version == 6 else "/proc/net/tcp").read_text()
    return sum(fields[1] == wanted and fields[3] == "0A" for fields in map(str.split, table.splitlines()[1:]))
