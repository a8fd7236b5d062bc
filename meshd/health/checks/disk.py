"""Checks of the disk, and of whether every entry has as many replicas as it could."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.health.checks.peers import cut_off
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, Severity
from meshd.overlay.health import OverlayFacts
from meshd.pins.facts import PinFacts

_SHOWN = 5


def storage(facts: Facts) -> Iterator[Condition]:
    """Room for content, and replicas that are missing."""
    overlay, pins = facts.of(OverlayFacts), facts.of(PinFacts)
    if pins.unreadable:
        yield Condition(
            "disk-unreadable",
            Severity.ERROR,
            "this node cannot see the disk of its content",
            f"{pins.unreadable}; nothing new is kept here, and what is here may not be readable",
            "findmnt; sudo dmesg | tail; once the disk is there and well: sudo systemctl restart meshd",
        )
    if pins.full:
        helps = "free some space, or lower [storage] reserve"
        if "inodes" in pins.full:
            helps = "remove small files (df -i shows where they are many)"
        yield Condition(
            "disk-floor",
            Severity.WARNING,
            "this node takes no more content",
            pins.full,
            f"{helps}; meshctl trash shows what waits to go",
        )
    # No content is given up for members that may be there.
    if pins.lost_count and overlay.settled and not cut_off(facts):
        lost = pins.lost_count
        names = ", ".join(pins.lost[:_SHOWN]) + (" and more" if lost > _SHOWN else "")
        yield Condition(
            "content-gone",
            Severity.ERROR,
            f"{_entries(lost)} no node left that holds it",
            f"every node that kept them is away or was forgotten: {names}",
            "start a node that had them (meshctl ls NAME shows which); if it is gone for good: meshctl rm --force NAME",
        )
    if pins.short:
        why = _why(facts)
        yield Condition(
            "copies-missing",
            Severity.WARNING,
            f"{_entries(pins.short)} fewer copies than there could be",
            f"{why}; copies are being made",
            "meshctl ls shows them; meshctl peers shows who is away",
        )


def _why(facts: Facts) -> str:
    """Which members cannot take a replica now, and why: `barn is away, cellar takes no more`."""
    mesh, pins = facts.of(MeshFacts), facts.of(PinFacts)
    away = [f"{p.name} is away" for p in mesh.peers if not p.reachable]
    full = [f"{p.name} takes no more" for p in mesh.peers if p.reachable and p.ready and not p.accepts]
    own = ["this node takes no more"] if pins.full else []
    told = [*own, *away, *full] or ["a node was away, or is new"]
    return ", ".join(told[:_SHOWN]) + (" and more" if len(told) > _SHOWN else "")


def _entries(count: int) -> str:
    return "1 entry has" if count == 1 else f"{count} entries have"


def early(facts: Facts) -> Iterator[Condition]:
    """Removed content that is deleted before its retention time, as the disk is full."""
    pins = facts.of(PinFacts)
    if pins.full and pins.trash:
        what = "1 removed entry" if pins.trash == 1 else f"{pins.trash} removed entries"
        yield Condition(
            "trash-early",
            Severity.WARNING,
            "what was removed goes early from this node's trash",
            f"the disk is at its floor, and {what} can still be restored here; the oldest goes first",
            "meshctl trash; what is still wanted: meshctl restore NAME; then free some space",
        )


def writing(facts: Facts) -> Iterator[Condition]:
    """A state folder that takes no writes, as when the kernel has made a faulty filesystem read-only."""
    pins = facts.of(PinFacts)
    if pins.unwritable:
        yield Condition(
            "state-unwritable",
            Severity.ERROR,
            "this node cannot write into its state folder",
            f"{pins.unwritable}; what is here may still be read, and nothing new can be kept",
            "sudo dmesg | tail; df -h; once the disk is well: sudo systemctl restart meshd",
        )


CHECKS = tuple(Check(look.__name__, look) for look in (storage, early, writing))
