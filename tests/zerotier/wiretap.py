"""Captures every packet that leaves a process in a network namespace, so that no contact goes unnoticed. Needs root.

Sampling the kernel's socket table would miss a short connection or a single datagram.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import threading
from typing import NamedTuple

from tests.zerotier import namespaces

_EVERYTHING = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_SOL_PACKET, _STATISTICS, _RCVBUFFORCE = 263, 6, 33
_SYN, _ACK = 0x02, 0x10
_KERNELS_OWN = (1, 2, 58)  # ICMP, IGMP, ICMPv6: no program sent it
_NAMES = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}


class Contact(NamedTuple):
    """A packet to somebody, or (tcp) a new connection. port: 0 where there is none."""

    kind: str
    address: str
    port: int


class Wiretap:
    """The capture. `contacts` grows: namespace -> whom its processes have contacted."""

    def __init__(self, names: list[str]) -> None:
        self.contacts: dict[str, dict[Contact, str]] = {name: {} for name in names}
        self._sockets = {namespaces._inside(name, _ear): name for name in names}
        self._end, self._told = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="wiretap", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Raises AssertionError where packets were dropped: then the capture proves nothing."""
        self._end.close()
        self._thread.join(10)
        lost = sum(_lost(one) for one in self._sockets)
        for one in [*self._sockets, self._told]:
            one.close()
        assert not lost, f"{lost} packets were not seen"

    def _run(self) -> None:
        poll = select.poll()
        by_fd = {one.fileno(): one for one in self._sockets}
        for fd in [*by_fd, self._told.fileno()]:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd not in by_fd:
                    return
                packet, (device, _, direction, *_) = by_fd[fd].recvfrom(128)
                if direction == _OUTGOING and (contact := contact_of(packet)) is not None:
                    self.contacts[self._sockets[by_fd[fd]]].setdefault(contact, device)


def contact_of(packet: bytes) -> Contact | None:
    """Whom it contacts; None for one that goes on with a TCP connection, or is no program's. packet: from its IP header on."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        protocol, target, rest = packet[9], packet[16:20], packet[(packet[0] & 0xF) * 4 :]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        protocol, target, rest = packet[6], packet[24:40], packet[40:]
        while protocol in (0, 43, 60) and len(rest) >= 8:  # options and routing come before what it is about
            protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    else:
        return None  # ARP and its like
    if protocol in _KERNELS_OWN:
        return None
    address, name = str(ipaddress.ip_address(target)), _NAMES.get(protocol, f"protocol {protocol}")
    if protocol == 6 and len(rest) >= 14 and rest[13] & (_SYN | _ACK) != _SYN:
        return None
    port = struct.unpack_from("!H", rest, 2)[0] if protocol in _NAMES and len(rest) >= 4 else 0
    return Contact(name, address, port)


def _ear() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))
    made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 16 << 20)
    return made


def _lost(one: socket.socket) -> int:
    _, dropped = struct.unpack("II", one.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    return int(dropped)
