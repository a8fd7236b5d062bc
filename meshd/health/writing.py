"""The disk below the state folder: a filesystem that found a fault in itself lets nothing be written any more."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity


def check(facts: Facts) -> Iterator[Condition]:
    if facts.unwritable:
        yield Condition(
            "state-unwritable",
            Severity.ERROR,
            "this node cannot write into its state folder",
            f"{facts.unwritable}; what is here may still be read, and nothing new can be kept",
            "sudo dmesg | tail; df -h; once the disk is well: sudo systemctl restart meshd",
        )
