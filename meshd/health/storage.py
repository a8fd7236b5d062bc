"""The disk, and whether every entry has the copies it could have."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health import members
from meshd.health.facts import Facts
from meshd.model import Condition, Severity

_SHOWN = 5


def check(facts: Facts) -> Iterator[Condition]:
    if facts.unreadable:
        yield Condition(
            "disk-unreadable",
            Severity.ERROR,
            "this node cannot see the disk of its content",
            f"{facts.unreadable}; nothing new is kept here, and what is here may not be readable",
            "findmnt; sudo dmesg | tail; once the disk is there and well: sudo systemctl restart meshd",
        )
    if facts.full:
        helps = "free some space, or lower [storage] reserve"
        if "inodes" in facts.full:
            helps = "remove small files (df -i shows where they are many)"
        yield Condition(
            "disk-floor",
            Severity.WARNING,
            "this node takes no more content",
            facts.full,
            f"{helps}; meshctl trash shows what waits to go",
        )
    # Nothing is given up for who may be there.
    if facts.lost and facts.settled and not members.cut_off(facts):
        names = ", ".join(facts.lost[:_SHOWN]) + (" and more" if len(facts.lost) > _SHOWN else "")
        yield Condition(
            "content-gone",
            Severity.ERROR,
            f"{_entries(len(facts.lost))} no node left that holds it",
            f"every node that kept them is away or was forgotten: {names}",
            "start a node that had them (meshctl ls NAME shows which); if it is gone for good: meshctl rm --force NAME",
        )
    if facts.short:
        why = _why(facts)
        yield Condition(
            "copies-missing",
            Severity.WARNING,
            f"{_entries(facts.short)} fewer copies than there could be",
            f"{why}; copies are being made",
            "meshctl ls shows them; meshctl peers shows who is away",
        )


def _why(facts: Facts) -> str:
    """`barn is away, cellar takes no more`: those that cannot take a copy now."""
    away = [f"{p.name} is away" for p in facts.peers if not p.reachable]
    full = [f"{p.name} takes no more" for p in facts.peers if p.reachable and p.ready and not p.accepts]
    own = ["this node takes no more"] if facts.full else []
    told = [*own, *away, *full] or ["a node was away, or is new"]
    return ", ".join(told[:_SHOWN]) + (" and more" if len(told) > _SHOWN else "")


def _entries(count: int) -> str:
    return "1 entry has" if count == 1 else f"{count} entries have"
