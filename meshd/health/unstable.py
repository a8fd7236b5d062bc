"""A service that runs, dies, and runs again: each look alone may find it well."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity

_OFTEN = 3


def check(facts: Facts) -> Iterator[Condition]:
    for name, count in facts.deaths.items():
        if count >= _OFTEN and facts.in_mesh and not facts.forgotten_by:
            how = facts.services[name].last_exit.partition("; its last lines")[0]
            yield Condition(
                "service-unstable",
                Severity.WARNING,
                f"{name} keeps dying",
                f"{count} times in ten minutes; the last time: {how}",
                f"free -h; df -h; sudo dmesg | tail; meshctl logs {name}",
                name,
            )
