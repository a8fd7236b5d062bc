"""The checks that look at more than one room, one file a topic. Each is pure, or remembers what it saw before."""

from __future__ import annotations

from meshd.conditions import Check
from meshd.health.checks import disk, failing, overlay, peers, privacy, programs, services


def all_checks() -> tuple[Check, ...]:
    """Those of this folder, made for one board."""
    return (
        *overlay.CHECKS,
        *programs.CHECKS,
        *services.checks(),
        *privacy.CHECKS,
        *peers.CHECKS,
        *disk.CHECKS,
        *failing.CHECKS,
    )
