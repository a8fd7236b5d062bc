"""The check of parts of meshd that raise. They run again; meanwhile what they are for is not done, or not seen."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.model import Condition, Fault, Severity

_OF_A_LOOK = "what it looks at is shown as it was last seen"


def failing(facts: Facts) -> Iterator[Condition]:
    yield from map(condition, facts.faults)


def condition(fault: Fault) -> Condition:
    """A fault as a condition. Diagnosis uses it for its own faults, too."""
    return Condition(
        "part-failed",
        Severity.ERROR,
        f"a part of meshd fails ({fault.part}): {fault.meanwhile or _OF_A_LOOK}",
        f"{fault.error}; it is tried again by itself",
        "sudo systemctl restart meshd; what led to it: journalctl -u meshd, or where you started it",
        fault.part,
        depends_on=("state-unwritable", "disk-unreadable")
        if fault.io_error
        else (),  # report the disk's fault once
    )


CHECKS = (Check("failing", failing),)
