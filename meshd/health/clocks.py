"""Clocks that differ: removals, invites and the roster go by the time that each node believes it is."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Severity

_APART_S = 60.0


def check(facts: Facts) -> Iterator[Condition]:
    for peer in facts.peers:
        if peer.reachable and abs(peer.ahead_s) > _APART_S:
            how = "ahead of" if peer.ahead_s > 0 else "behind"
            yield Condition(
                "clock-apart",
                Severity.WARNING,
                f"the clocks of {peer.name} and this node differ",
                f"its clock is {abs(peer.ahead_s):.0f} s {how} this one; invites expire and removals count by the clock",
                "timedatectl, on both: the one that is not synchronized is wrong",
                peer.name,
            )
