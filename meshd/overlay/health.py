"""The facts of this room, and the check of them: is there an address, and can it be used?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from meshd.conditions import Check, Facts
from meshd.model import Condition, OverlayState


@dataclass(frozen=True, slots=True)
class OverlayFacts:
    """settled: False just after the start, or after the address came back, as no peer has been polled yet."""

    state: OverlayState = field(default_factory=OverlayState)
    settled: bool = True


def overlay(facts: Facts) -> Iterator[Condition]:
    problem = facts.of(OverlayFacts).state.problem
    if problem is not None:
        yield problem


CHECKS = (Check("overlay", overlay),)
