"""What the checks of a node's health go by, made up; and what they tell of it."""

from __future__ import annotations

from typing import Any

from meshd import __version__
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


def told(given: Facts) -> list[Condition]:
    board = Board()
    board.update(given)
    return list(board.conditions)
