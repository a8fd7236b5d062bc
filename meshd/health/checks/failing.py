"""Parts of meshd itself that raise. They are done again; what they are for is not done, or not seen, meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.model import Condition, Fault, Severity

_OF_A_LOOK = "what it looks at is shown as it was last seen"


def failing(facts: Facts) -> Iterator[Condition]:
    yield from map(condition, facts.faults)


def condition(fault: Fault) -> Condition:
    """It, as a person is told of it. The board's own are told so too."""
    return Condition(
        "part-failed",
        Severity.ERROR,
        f"a part of meshd fails ({fault.part}): {fault.meanwhile or _OF_A_LOOK}",
        f"{fault.error}; it is tried again by itself",
        "sudo systemctl restart meshd; what led to it: journalctl -u meshd, or where you started it",
        fault.part,
        depends_on=("state-unwritable", "disk-unreadable")
        if fault.io_error
        else (),  # the disk's fault is told once
    )


CHECKS = (Check("failing", failing),)
