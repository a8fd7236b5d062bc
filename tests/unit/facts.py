"""What the checks of a node's health go by, made up; and what they tell of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshd import __version__
from meshd.errors import Code, MeshError
from meshd.health.board import Board
from meshd.health.facts import Facts
from meshd.model import Condition, OverlayState, PeerState, Phase, ServiceState, Severity

UP = OverlayState("10.0.0.1", "wg0")
DOWN = OverlayState(problem=Condition("overlay-down", Severity.ERROR, "the address is gone", "c", "h"))
DAY = 86400.0
HERE = PeerState("f2", "barn", "10.0.0.2", reachable=True, ready=True, accepts=True, version=__version__)
AWAY = PeerState("f2", "barn", "10.0.0.2", problem="it does not answer")


def facts(now: float = 100.0, **given: Any) -> Facts:
    """A node on which all is well, but for what is given."""
    ready = {name: ServiceState(name, Phase.READY) for name in ("kubo", "cluster")}
    fields: dict[str, Any] = {"in_mesh": True, "overlay": UP, "services": ready}
    return Facts(**({"now": now} | fields | given))


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
    board = Board()
    board.update(given)
    return list(board.conditions)


def listened() -> tuple[Board, list[tuple[str, str]]]:
    board, heard = Board(), list[tuple[str, str]]()
    board.listeners.append(lambda what, condition: heard.append((what, condition.code)))
    return board, heard
