"""Checks of the private network: is there an address, and can it be used?"""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.model import Condition
from meshd.overlay.facts import OverlayFacts


def overlay(facts: Facts) -> Iterator[Condition]:
    problem = facts.of(OverlayFacts).state.problem
    if problem is not None:
        yield problem


CHECKS = (Check("overlay", overlay),)
