"""Watches the kernel's socket table for as long as the tests run: nothing may ever listen off the overlay."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.mesh.nodes import METRICS_PORT, PORTS, Node

_EVERY_S = 0.04
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Open:
    """One line of the kernel's table. remote: empty for a socket that is not connected."""

    kind: str
    address: str
    port: int
    listening: bool
    remote: str

    def __str__(self) -> str:
        what = "listening" if self.listening else f"to {self.remote or 'nobody'}"
        return f"{self.kind} {self.address}:{self.port} {what}"


def table() -> dict[int, Open]:
    """All Internet sockets of this network namespace, by inode."""
    found: dict[int, Open] = {}
    for kind in ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
                fields = line.split()
                local, remote = _end(fields[1]), _end(fields[2])
                found[int(fields[9])] = Open(
                    kind=kind.rstrip("6"),
                    address=local[0],
                    port=local[1],
                    listening=kind.startswith("tcp") and fields[3] == _LISTEN,
                    remote=remote[0] if remote[1] else "",
                )
    return found


def _end(field: str) -> tuple[str, int]:
    raw, _, port = field.partition(":")
    words = bytes.fromhex(raw)
    count = len(words) // 4
    packed = struct.pack(f">{count}I", *struct.unpack(f"={count}I", words))
    ip = ipaddress.ip_address(packed)
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip), int(port, 16)


def inodes(pid: int) -> set[int]:
    """The sockets that a process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                link = str(entry.readlink())
                if link.startswith("socket:["):
                    found.add(int(link[8:-1]))
    return found


class Sampler:
    """A thread that looks at meshd and all its descendants again and again. `findings` grows; it never shrinks."""

    def __init__(self, nodes: Callable[[], Iterable[Node]]) -> None:
        self._nodes = nodes
        self.findings: list[str] = []
        self.seen: dict[str, set[tuple[str, int]]] = {}  # node -> (address, port) of every listener ever
        self.samples = 0
        self._addresses: set[str] = set()
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
        held: list[tuple[Node, str, set[int]]] = []
        for node in nodes:
            process = node.process
            if process is None:
                continue
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                for one in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        held.append((node, one.name(), inodes(one.pid)))
        sockets = table()
        for node, program, own in held:
            for found in (sockets[i] for i in own & sockets.keys()):
                self._judge(node, program, found)
        self.samples += 1

    def _judge(self, node: Node, program: str, found: Open) -> None:
        if found.listening:
            self.seen.setdefault(repr(node), set()).add((found.address, found.port))
        why = wrong(node, found, self._addresses)
        if why:
            line = f"{node} {program}: {found}: {why}"
            if line not in self.findings:
                self.findings.append(line)


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
