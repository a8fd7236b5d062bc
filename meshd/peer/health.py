"""The facts of this room, and the check of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshd.conditions import Check, Facts
from meshd.model import Condition, Severity


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """asking: (id, name, address) of nodes that ask to join."""

    asking: tuple[tuple[str, str, str], ...] = ()


def requests(facts: Facts) -> Iterator[Condition]:
    for handle, name, address in facts.of(PeerFacts).asking:
        yield Condition(
            "join-request",
            Severity.INFO,
            f"{name} at {address} asks to join",
            "a person must compare the code that it shows",
            f"meshctl approve {handle}",
            handle,
            depends_on=("forgotten",),
        )


CHECKS = (Check("requests", requests),)
