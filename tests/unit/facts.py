"""Made-up facts for the health checks, and the conditions that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from meshd import __version__
from meshd.conditions import Check, Facts
from meshd.diagnosis import Checks
from meshd.errors import Code, MeshError
from meshd.health.board import Board
from meshd.health.checks import all_checks
from meshd.health.facts import AuditFacts
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, Fault, OverlayState, PeerState, Phase, ServiceState, Severity
from meshd.overlay import health as overlay
from meshd.overlay.health import OverlayFacts
from meshd.peer import health as peer
from meshd.peer.health import PeerFacts
from meshd.pins.facts import PinFacts
from meshd.reconciler import health as reconciler
from meshd.reconciler.health import ReconcilerFacts
from meshd.supervise.facts import ServiceFacts

UP = OverlayState("10.0.0.1", "wg0")
DOWN = OverlayState(problem=Condition("overlay-down", Severity.ERROR, "the address is gone", "c", "h"))
DAY = 86400.0
HERE = PeerState("f2", "barn", "10.0.0.2", reachable=True, ready=True, accepts=True, version=__version__)
AWAY = PeerState("f2", "barn", "10.0.0.2", problem="it does not answer")


KINDS = (OverlayFacts, ServiceFacts, MeshFacts, PinFacts, AuditFacts, PeerFacts, ReconcilerFacts)


def facts(now: float = 100.0, *, faults: tuple[Fault, ...] = (), **given: Any) -> Facts:
    """A node on which all is well, but for what is given: the fields of all rooms' facts, `overlay` for the state of it."""
    ready = {name: ServiceState(name, Phase.READY) for name in ("kubo", "cluster")}
    fields: dict[str, Any] = {"in_mesh": True, "overlay": UP, "services": ready} | given
    fields["state"] = fields.pop("overlay")
    of_rooms = []
    for kind in KINDS:
        names = {field.name for field in dataclasses.fields(kind)}
        of_rooms.append(kind(**{name: fields.pop(name) for name in names & fields.keys()}))
    assert not fields, "no room has such facts"
    return Facts(now, of_rooms, faults)


def every_check() -> tuple[Check, ...]:
    """The checks of all rooms, made for one board."""
    return (*overlay.CHECKS, *all_checks(), *peer.CHECKS, *reconciler.CHECKS)


class Looked(Board):
    """A board with the checks, which run on the facts that it is given."""

    def __init__(self, checks: Iterable[Check] | None = None) -> None:
        super().__init__()
        self._checks = Checks(every_check() if checks is None else checks)

    def look(self, given: Facts) -> None:
        self.update(self._checks.conditions(given), given.now)


def service(**changes: Any) -> dict[str, Any]:
    return {"services": {"kubo": ServiceState("kubo", **changes)}}


TROUBLE: list[tuple[str, str, dict[str, Any]]] = [
    ("overlay-down", "", {"overlay": DOWN}),
    ("peer-api-down", "", {"listen_error": MeshError(Code.BUSY, "cannot listen", "d", "h")}),
    ("service-leak", "kubo", service(phase=Phase.READY, leak="UDP 0.0.0.0:1")),
    ("service-leak", "kubo", service(phase=Phase.BACKOFF, leak="UDP 0.0.0.0:1", last_exit="killed")),
    ("service-frozen", "kubo", service(phase=Phase.READY, missed=1)),
    ("service-down", "kubo", service(phase=Phase.BACKOFF, last_exit="exit 1")),
    ("service-down", "kubo", service(phase=Phase.STARTING, last_exit="exit 1")),
    ("kubo-config-drift", "", {"drift": ("Bootstrap is ['auto']",)}),
    ("swarm-stranger", "12D3x", {"strangers": ("12D3x at /ip4/10.0.0.9/tcp/4001",)}),
    ("secret-readable", "/var/lib/meshd/node.key", {"open_files": ("/var/lib/meshd/node.key",)}),
    ("forgotten", "", {"forgotten_by": "barn", "mesh_name": "archive"}),
    ("member-joined", "cellar", {"joined": (("cellar", "attic", "invited"),)}),
    ("peer-away", "barn", {"peers": (AWAY,)}),
    (
        "peer-problem",
        "barn",
        {"peers": (PeerState("f2", "barn", "10.0.0.2", reachable=True, ready=True, problem="old"),)},
    ),
    ("peer-lost", "barn", {"now": 1e9, "peers": (replace(AWAY, last_seen=1e9 - 8 * DAY),)}),
    ("peer-full", "barn", {"peers": (replace(HERE, accepts=False),)}),
    ("peer-version", "barn", {"peers": (replace(HERE, version="0.0.1"),)}),
    ("disk-floor", "", {"full": "the disk has 5 bytes free"}),
    ("copies-missing", "", {"short": 3}),
    ("state-unwritable", "", {"unwritable": "Read-only file system"}),
    (
        "engine-missing",
        "",
        {"in_mesh": False, "unusable": MeshError(Code.ENGINE_MISSING, "cannot find ipfs")},
    ),
    ("clock-apart", "barn", {"peers": (replace(HERE, ahead_s=-61.0),)}),
]


def told(given: Facts) -> list[Condition]:
    board = Looked()
    board.look(given)
    return list(board.conditions)


def listened() -> tuple[Looked, list[tuple[str, str]]]:
    board, heard = Looked(), list[tuple[str, str]]()
    board.listeners.append(lambda what, condition: heard.append((what, condition.code)))
    return board, heard
