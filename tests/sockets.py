"""The kernel's Internet sockets, as `ss` asks for them (NETLINK_SOCK_DIAG): a tenth of what reading /proc/net/tcp takes."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_KINDS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "udplite": 136, "raw": socket.IPPROTO_RAW}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

# The states of a TCP socket that are named here; all others as in the kernel's tcp_states.h.
_SYN_SENT, _TIME_WAIT, _LISTEN = 2, 6, 10
_HELD = 0xFFF & ~(1 << _TIME_WAIT)  # what no process holds any more is nobody's

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_REQUEST = struct.Struct("=BBBBI48x")  # inet_diag_req_v2, of any address
_ANSWER = struct.Struct("=BB2x4s16s16s12x16xI")  # inet_diag_msg


@dataclass(frozen=True, slots=True)
class Open:
    """One socket. remote: empty where it is not connected, with remote_port 0."""

    kind: str
    address: str
    port: int
    listening: bool
    remote: str
    remote_port: int = 0
    calling: bool = False  # it waits for the other side to answer

    def __str__(self) -> str:
        what = "listening" if self.listening else f"to {self.remote or 'nobody'}"
        return f"{self.kind} {self.address}:{self.port} {what}"


_Raw = tuple[
    str, int, int, bytes, bytes, bytes
]  # kind, family, state, both ports, the local address, the remote one


class Table:
    """Sockets of this network namespace by inode, made out one by one as they are asked for: most are of others."""

    def __init__(self, raw: dict[int, _Raw]) -> None:
        self._raw = raw

    def inodes(self) -> set[int]:
        return set(self._raw)

    def __getitem__(self, inode: int) -> Open:
        return _opened(*self._raw[inode])

    def __iter__(self) -> Iterator[Open]:
        return (_opened(*one) for one in self._raw.values())


def table(*, connected: bool = True) -> Table:
    """All Internet sockets that processes of this network namespace hold. connected: also TCP sockets that do not listen,
    which takes the kernel some thirty times as long."""
    found: dict[int, _Raw] = {}
    for kind in _KINDS:
        states = 1 << _LISTEN if kind == "tcp" and not connected else _HELD
        for family in _FAMILIES:
            found.update(_list(kind, family, states))
    found.pop(0, None)  # no process holds it yet
    return Table(found)


def _list(kind: str, family: int, states: int) -> Iterable[tuple[int, _Raw]]:
    try:
        return list(_asked(kind, family, states))
    except FileNotFoundError:  # a kernel without that part of sock_diag
        return _read(kind, family, states)


def _asked(kind: str, family: int, states: int) -> Iterator[tuple[int, _Raw]]:
    for message in _dump(family, _KINDS[kind], states):
        _, state, ports, local, remote, inode = _ANSWER.unpack_from(message)
        yield inode, (kind, family, state, ports, local, remote)


def _read(kind: str, family: int, states: int) -> Iterator[tuple[int, _Raw]]:
    """The same from /proc/net."""
    with contextlib.suppress(FileNotFoundError):  # nor that kind of socket
        table = Path(f"/proc/net/{kind}{'6' if family == socket.AF_INET6 else ''}").read_text()
        for line in table.splitlines()[1:]:
            fields = line.split()
            (local, port), (remote, remote_port) = _end(fields[1]), _end(fields[2])
            state = int(fields[3], 16)
            if 1 << state & states:
                yield int(fields[9]), (kind, family, state, port + remote_port, local, remote)


def _end(field: str) -> tuple[bytes, bytes]:
    """Address and port, of words in the byte order of the machine; 16 bytes as the kernel's messages have them."""
    raw, _, port = field.partition(":")
    words = bytes.fromhex(raw)
    count = len(words) // 4
    packed = struct.pack(f">{count}I", *struct.unpack(f"={count}I", words))
    return packed.ljust(16, b"\0"), bytes.fromhex(port)


def _dump(family: int, protocol: int, states: int) -> Iterator[memoryview]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
        length = _HEADER.size + _REQUEST.size
        asked.send(
            _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
            + _REQUEST.pack(family, protocol, 0, 0, states)
        )
        while True:
            answer = memoryview(asked.recv(1 << 18))
            while answer:
                length, what, _, _, _ = _HEADER.unpack_from(answer)
                if what in (_DONE, _ERROR):
                    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
                    if number:
                        raise OSError(-number, f"cannot list sockets: {os.strerror(-number)}")
                    return
                yield answer[_HEADER.size : length]
                answer = answer[(length + 3) & ~3 :]


@functools.lru_cache(4096)  # a socket is looked at again and again
def _opened(kind: str, family: int, state: int, ports: bytes, local: bytes, remote: bytes) -> Open:
    port, remote_port = struct.unpack(">HH", ports)
    return Open(
        kind=kind,
        address=_text(family, local),
        port=port,
        listening=kind == "tcp" and state == _LISTEN,
        remote=_text(family, remote) if remote_port else "",
        remote_port=remote_port,
        calling=kind == "tcp" and state == _SYN_SENT,
    )


def _text(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(packed[:4]))
    ip = ipaddress.IPv6Address(packed)
    return str(ip.ipv4_mapped or ip)
