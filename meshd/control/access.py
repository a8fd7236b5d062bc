"""Authentication on the Unix socket, by SO_PEERCRED, and the caller's role."""

from __future__ import annotations

import errno
import grp
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from meshd.config import Control
from meshd.errors import Code, MeshError
from meshd.principal import Principal, Role

_GROUPS_BYTES = 1024  # the most that Python's getsockopt takes: 256 groups
_SO_PEERGROUPS, _SO_PEERPIDFD = 59, 77  # linux/socket.h; not in Python's socket module
_GONE = -1


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that connected, as of then. groups: its group and supplementary group ids.

    pid: 0 where it is in another pid namespace; -1 where it is known to have exited, so that the pid may be reused.
    """

    pid: int
    uid: int
    groups: frozenset[int]


def caller_of(connection: socket.socket) -> Caller:
    """The caller, from SO_PEERCRED and SO_PEERGROUPS. Raises OSError where the socket is no Unix socket."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            raise
        raw = b""  # more groups than fit: only the first one counts
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    return Caller(_GONE if pid and _has_ended(connection) else pid, uid, frozenset((gid, *groups)))


def _has_ended(connection: socket.socket) -> bool:
    """Whether the process that connected has exited, even if its pid is reused. False where the kernel cannot tell."""
    try:
        process = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        # Before Linux 6.5, or too many open files, which says nothing of the caller.
        return exc.errno not in (errno.ENOPROTOOPT, errno.EMFILE, errno.ENFILE)
    try:
        signal.pidfd_send_signal(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's, so it exists
    finally:
        os.close(process)
    return False


class Gatekeeper:
    """Assigns roles by uid and group. Children of the daemon get none: a compromised engine gets no control."""

    def __init__(
        self,
        control: Control,
        children: Callable[[], Iterable[int]],
        in_their_groups: Callable[[str], bool] = lambda membership: False,
    ) -> None:
        """children: pids of the supervised programs; each leads a process group of its own. in_their_groups: whether a
        process with that /proc/PID/cgroup is in a control group of theirs, which unlike the other is not left by setsid.
        """
        self._admin_group = _gid(control.admin_group)
        self._read_group = _gid(control.read_group)
        self._children = children
        self._in_their_groups = in_their_groups

    def knows(self, caller: Caller) -> bool:
        """Whether a group gives this caller a role, of a reader at least."""
        return not {self._admin_group, self._read_group}.isdisjoint(caller.groups)

    def identify(self, caller: Caller) -> Principal:
        """The caller as a principal. Raises MeshError DENIED for one that may do nothing."""
        if self._is_child(caller):
            raise MeshError(
                Code.DENIED,
                "cannot answer",
                "a program that meshd supervises may not control it",
                "the same in a shell of your own",
            )
        return Principal(label=f"user id {caller.uid}", how="local", role=self._role(caller), uid=caller.uid)

    def _role(self, caller: Caller) -> Role:
        if caller.uid in (0, os.geteuid()) or self._admin_group in caller.groups:
            return "admin"
        return "read" if self._read_group in caller.groups else "none"

    def _is_child(self, caller: Caller) -> bool:
        """Whether it descends from a supervised program. Raises MeshError DENIED where nobody can tell any more."""
        if caller.pid == 0:
            return False  # in another pid namespace; the programs are in this one
        try:
            if os.getpgid(caller.pid) in set(self._children()):
                return True
            return self._in_their_groups(
                Path(f"/proc/{caller.pid}/cgroup").read_text(errors="surrogateescape")
            )
        except OSError:
            if caller.uid != os.geteuid():
                return False  # /proc may hide other users' processes; a supervised program is never one
            # What ends right after it has asked could be one of them that left its socket to another process.
            raise MeshError(Code.DENIED, "cannot answer", "the caller is gone") from None


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        return -1  # no such group on this machine, so nobody is in it
