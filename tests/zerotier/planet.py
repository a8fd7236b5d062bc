"""The shared state behind the fake services: the controllers' networks and members, and the running services.

It answers on a Unix socket, as the filesystem is the one thing that network namespaces share: a line of JSON in, a line
of JSON out, one call a connection.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.zerotier.controllers import Controllers, RefusedError

NODE = "1a2b3c4d5e"  # the one that is under test, where there is one machine
_ROOTS = ("62f865ae71", "778cde7190", "cafe04eba9", "cafe9efeb9")  # ZeroTier's own, which are never reached


class Planet(Controllers):
    """Thread-safe; each method can be called over the socket by its name, too.

    Faults on request: `absent`, `relayed`, `force` and `keep_off_interface`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.absent: set[str] = set()
        """Controllers that are running and cannot be reached."""
        self.relayed: set[str] = set()
        """Nodes to which nobody has a path of his own."""
        self.moon = ""
        """The service that is a root of this planet's own: everybody talks to it."""
        self.wire: Callable[[str, bool], None] | None = None
        """Called with a member and whether others still take its packets: the others hear at once who is out."""
        self._running: dict[str, dict[str, str]] = {}  # services, by address: their endpoint and version
        self._forced: dict[tuple[str, str], dict[str, Any]] = {}
        self._kept_off: set[str] = set()
        self._server: socketserver.ThreadingUnixStreamServer | None = None
        self._thread: threading.Thread | None = None

    # -- knobs ------------------------------------------------------------------------------------------------------

    def force(self, network: str, member: str, status: str | None, url: str = "") -> None:
        """From now on that member's service says so of the network; None: as it really is. url: where to log in."""
        with self.lock:
            if status is None:
                self._forced.pop((network, member), None)
            else:
                self._forced[network, member] = {"status": status, "url": url}
            self.changed(network, member)

    def change_member(self, network: str, member: str, changes: dict[str, Any]) -> dict[str, Any]:
        said = super().change_member(network, member, changes)
        if self.wire is not None and "authorized" in changes:
            self.wire(member, self.may_talk(member))
        return said

    def keep_off_interface(self, member: str, *, kept: bool = True) -> None:
        """OK, with addresses, and they are not on the interface (ZeroTierOne#809)."""
        with self.lock:
            (self._kept_off.add if kept else self._kept_off.discard)(member)

    def identity(self, address: str) -> str:
        """Has the shape of a public identity and is none."""
        return f"{address}:0:{(address * 13)[:128]}"

    # -- what services ask ------------------------------------------------------------------------------------------

    def here(self, address: str, endpoint: str, version: str = "1.14.1") -> None:
        """Register a service that has started."""
        with self.lock:
            self._running[address] = {"endpoint": endpoint, "version": version}

    def gone(self, address: str) -> None:
        """Remove a service that has stopped."""
        with self.lock:
            self._running.pop(address, None)

    def reachable(self, controller: str) -> bool:
        """Whether members can reach it."""
        return (controller in self._running or controller in self.hosted) and controller not in self.absent

    def request(self, network: str, member: str) -> dict[str, Any]:
        """A member asks for its configuration: {"config"}, {"failure", "url"}, or {} where no controller answers."""
        with self.lock:
            if forced := self._forced.get((network, member)):
                return {"failure": forced["status"], "url": forced["url"]}
            if not self.reachable(network[:10]):
                return {}
            self.asked(network, member, self.identity(member))
            try:
                return {"config": self.config(network, member)}
            except RefusedError as exc:
                return {"failure": exc.status, "url": ""}

    def pushes(self, member: str, since: int) -> dict[str, Any]:
        """What controllers send unasked since then: configurations, and a refusal only to themselves (as measured)."""
        with self.lock:
            sent = {}
            for network in self.changed_since(member, since):
                forced, own = (network, member) in self._forced, network.startswith(member)
                answer = self.request(network, member) if forced or self.has_asked(network, member) else {}
                if "config" in answer or forced or own:
                    sent[network] = answer
            return {"now": self.serial, "sent": sent, "kept_off": member in self._kept_off}

    def peers(self, member: str) -> list[dict[str, Any]]:
        """Whom a service talks to: address, role, endpoint ("" for no path), version."""
        with self.lock:
            found = [{"address": root, "role": "PLANET", "endpoint": "", "version": ""} for root in _ROOTS]
            for other, what in self._running.items():
                if other != member and (self.moon in (member, other) or self.acquainted(member, other)):
                    role = "MOON" if other == self.moon else "LEAF"
                    cut = {"endpoint": ""} if {member, other} & self.relayed else {}
                    found.append({"address": other, "role": role, **what, **cut})
            return sorted(found, key=lambda peer: str(peer["address"]))

    # -- the socket -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        planet = self

        class Call(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(BrokenPipeError):  # who asked did not wait for it
                    asked = json.loads(self.rfile.readline() or b'["gone", ""]')
                    self.wfile.write(json.dumps(planet.call(*asked)).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(str(self.path), Call)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="planet", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def call(self, name: str, *words: Any) -> dict[str, Any]:
        """{"answer"}, or {"refused": status} where a controller does not do it."""
        if name not in CALLS:
            raise ValueError(name)
        try:
            return {"answer": getattr(self, name)(*words)}
        except RefusedError as exc:
            return {"refused": exc.code}


CALLS = {"here", "gone", "request", "pushes", "peers"} | {
    f"{verb}{what}" for verb in ("", "change_", "remove_") for what in ("network", "member")
}
CALLS |= {"networks", "members", "make_network"}


def ask(path: Path, name: str, *words: Any) -> Any:
    """A call from another process. Raises RefusedError, OSError."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(10)
        wire.connect(str(path))
        wire.sendall(json.dumps([name, *words]).encode() + b"\n")
        answer = json.loads(wire.makefile().readline())
    if "refused" in answer:
        raise RefusedError("", answer["refused"])
    return answer["answer"]


def new_address() -> str:
    """10 hex digits, as of a node that has just made its identity."""
    return "1" + secrets.token_hex(5)[1:]  # ff is reserved, and so is 0000000000
