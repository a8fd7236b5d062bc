"""The facts of this room, and the check of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshd.conditions import Check, Facts
from meshd.errors import MeshError
from meshd.model import Condition, Severity
from meshd.overlay.health import OverlayFacts


@dataclass(frozen=True, slots=True)
class ReconcilerFacts:
    """listen_error: why the peer API cannot listen; "" where it can."""

    listen_error: MeshError | None = None


def peer_api(facts: Facts) -> Iterator[Condition]:
    error = facts.of(ReconcilerFacts).listen_error
    if error is not None and facts.of(OverlayFacts).state.address is not None:
        yield Condition("peer-api-down", Severity.ERROR, error.title, error.detail, error.hint)


CHECKS = (Check("peer-api", peer_api),)
