"""Nodes that nobody has seen for so long that somebody should decide."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, PeerState, Severity

_LONG_S = 7 * 86400.0


def is_long(peer: PeerState, now: float) -> bool:
    """now: wall clock seconds."""
    return not peer.reachable and 0 < peer.last_seen < now - _LONG_S


def check(facts: Facts) -> Iterator[Condition]:
    if facts.forgotten_by or facts.overlay.address is None:
        return
    for peer in facts.peers:
        if is_long(peer, facts.now):
            days = int((facts.now - peer.last_seen) // 86400)
            yield Condition(
                "peer-lost",
                Severity.ERROR,
                f"{peer.name} has been away for {days} days",
                "its copies count for nothing; where other nodes had room, they were made there",
                f"start it; if it never comes back: meshctl forget {peer.name}",
                peer.name,
            )
