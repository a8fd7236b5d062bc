"""Watches the kernel's socket table for as long as the tests run: nothing may ever listen off the overlay."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.mesh.nodes import METRICS_PORT, PORTS, Node
from tests.processes import descendants, held_by
from tests.sockets import Open, table

_EVERY_S = 0.04
_CONNECTED_EVERY = (
    3  # samples; a call to somebody takes longer to fail or to be answered, and much longer to be listed
)


class Holder(NamedTuple):
    """Whose socket it is: a program of a node."""

    node: Node
    program: str


class Sampler:
    """A thread that looks at meshd and all its descendants again and again. `findings` grows; it never shrinks."""

    def __init__(self, nodes: Callable[[], Iterable[Node]]) -> None:
        self._nodes = nodes
        self.findings: list[str] = []
        self.seen: dict[str, set[tuple[str, int]]] = {}  # node -> (address, port) of every listener ever
        self.samples = 0
        self._addresses: set[str] = set()
        self._pids: list[int] = []
        self._holders: dict[int, Holder | None] = {}  # by inode; None: of nobody whom this looks at
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sockets", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            try:
                self.look()
            except Exception as exc:  # noqa: BLE001 - a sampler that died must not look like a clean one
                self.findings.append(f"the sampler broke: {exc!r}")
                return

    def look(self) -> None:
        """One sample of every node."""
        nodes = list(self._nodes())
        self._addresses |= {n.address for n in nodes}
        pids = [n.process.pid for n in nodes if n.process is not None]
        if not pids:  # what it costs is saved for the tests of other rooms
            self.samples += 1
            return
        if pids != self._pids:  # what was a stranger's may have been of one that has just been started
            self._pids, self._holders = pids, {}
        whole = self.samples % _CONNECTED_EVERY == 0
        found = table(connected=whole)
        if (
            found.inodes() - self._holders.keys()
        ):  # who holds what does not change, and takes long to find out
            self._holders = dict.fromkeys(found.inodes(), None) | self._holders | _held(nodes)
        for inode in found.inodes():
            holder = self._holders[inode]
            if holder is not None:
                self._judge(*holder, found[inode])
        if whole:
            self._holders = {inode: self._holders[inode] for inode in found.inodes()}
        self.samples += 1

    def _judge(self, node: Node, program: str, found: Open) -> None:
        if found.listening:
            self.seen.setdefault(repr(node), set()).add((found.address, found.port))
        why = wrong(node, found, self._addresses)
        if why:
            line = f"{node} {program}: {found}: {why}"
            if line not in self.findings:
                self.findings.append(line)


def _held(nodes: Iterable[Node]) -> dict[int, Holder | None]:
    """Who holds which socket. Asked after the table, so that who holds what stands there has begun."""
    held: dict[int, Holder | None] = {}
    for node in nodes:
        process = node.process
        if process is not None:
            for pid in (process.pid, *descendants(process.pid)):
                with contextlib.suppress(OSError):  # it has just ended
                    program = Path(f"/proc/{pid}/comm").read_text().strip()
                    held |= dict.fromkeys(held_by(pid), Holder(node, program))
    return held


def wrong(node: Node, found: Open, addresses: set[str]) -> str:
    """Why that socket may not be, or ""."""
    if found.kind != "tcp":
        return "it is not TCP"
    if found.listening:
        overlay = found.address == node.address and found.port in PORTS
        metrics = (found.address, found.port) == (node.metrics_address, METRICS_PORT)
        return "" if overlay or metrics else "it listens where nothing may"
    if found.remote and found.remote not in addresses and not ipaddress.ip_address(found.remote).is_loopback:
        return "it speaks to somebody off the overlay"
    return ""
