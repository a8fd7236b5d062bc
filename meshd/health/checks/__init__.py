"""The checks of facts of more than one room, one file a topic. Each is pure, or has a memory of its own."""

from __future__ import annotations

from meshd.conditions import Check
from meshd.health.checks import disk, failing, peers, privacy, services


def all_checks() -> tuple[Check, ...]:
    """All checks of this folder, made for one board."""
    return (
        *services.checks(),
        *privacy.CHECKS,
        *peers.CHECKS,
        *disk.CHECKS,
        *failing.CHECKS,
    )
