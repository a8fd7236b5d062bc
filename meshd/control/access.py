"""Who is at the other end of the Unix socket, by the kernel's word, and what that one may do."""

from __future__ import annotations

import errno
import grp
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from meshd.config import Control
from meshd.errors import Code, MeshError

Access = Literal["read", "admin"]
_GROUPS_BYTES = 1024  # the most that Python's getsockopt takes: 256 groups
_SO_PEERGROUPS = 59  # linux/socket.h; not in Python's socket module


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that made the connection, as it was then. groups: its group and supplementary group ids."""

    pid: int
    uid: int
    groups: frozenset[int]


def caller_of(connection: socket.socket) -> Caller:
    """From SO_PEERCRED and SO_PEERGROUPS. Raises OSError where the socket is no Unix socket."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            raise
        raw = b""  # more groups than fit: only the first one counts
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    return Caller(pid, uid, frozenset((gid, *groups)))


class Gatekeeper:
    """Decides by uid and group. Children of the daemon are refused: an engine that was taken over gets no control."""

    def __init__(self, control: Control, children: Callable[[], Iterable[int]]) -> None:
        """children: pids of the supervised programs; each leads a process group of its own."""
        self._admin_group = _gid(control.admin_group)
        self._read_group = _gid(control.read_group)
        self._children = children

    def check(self, caller: Caller, wanted: Access) -> None:
        """Raises MeshError DENIED with what to do about it."""
        try:
            group = os.getpgid(caller.pid)
        except ProcessLookupError:
            group = -1  # it ended after it asked
        if group in set(self._children()):
            raise MeshError(
                Code.DENIED,
                "cannot answer",
                "a program that meshd supervises may not control it",
                "the same in a shell of your own",
            )
        if caller.uid in (0, os.geteuid()) or self._admin_group in caller.groups:
            return
        if self._read_group in caller.groups:
            if wanted == "read":
                return
            raise MeshError(Code.DENIED, "cannot do that", "your group may only look", "sudo meshctl ...")
        raise MeshError(
            Code.DENIED,
            "cannot talk to meshd",
            f"user id {caller.uid} is not in its group",
            "sudo usermod -aG meshd $USER, then log in again; or: sudo meshctl ...",
        )


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        return -1  # there is no such group on this machine: nobody is in it
