"""The private network: is there an address, and can it be used?"""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity


def check(facts: Facts) -> Iterator[Condition]:
    if facts.overlay.problem is not None:
        yield facts.overlay.problem
    if facts.listen_error is not None and facts.overlay.address is not None:
        error = facts.listen_error
        yield Condition("peer-api-down", Severity.ERROR, error.title, error.detail, error.hint)
