"""Removed content that goes before its time, for want of room."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity


def check(facts: Facts) -> Iterator[Condition]:
    if facts.full and facts.trash:
        what = "1 removed entry" if facts.trash == 1 else f"{facts.trash} removed entries"
        yield Condition(
            "trash-early",
            Severity.WARNING,
            "what was removed goes early from this node's trash",
            f"the disk is at its floor, and {what} can still be restored here; the oldest goes first",
            "meshctl trash; what is still wanted: meshctl restore NAME; then free some space",
        )
