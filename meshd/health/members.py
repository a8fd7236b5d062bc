"""The other nodes: who is away, who is new, and whether this node still belongs to them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.health.long_away import is_long
from meshd.model import Condition, PeerState, Severity

_AT_ONCE_S = 60.0
_NEW_S = 20.0  # a node that has just joined is not away because it was not asked yet


def check(facts: Facts) -> Iterator[Condition]:
    if facts.forgotten_by:
        yield Condition(
            "forgotten",
            Severity.ERROR,
            f"the mesh {facts.mesh_name} has forgotten this node",
            f"{facts.forgotten_by} typed: meshctl forget",
            "meshctl leave, then ask a member for: meshctl invite",
        )
        return
    for name, by, how in facts.joined:
        yield Condition(
            "member-joined", Severity.INFO, f"{name} joined, {how} by {by}", "", "meshctl peers", name
        )
    for handle, name, address in facts.asking:
        yield Condition(
            "join-request",
            Severity.INFO,
            f"{name} at {address} asks to join",
            "a person must compare the code that it shows",
            f"meshctl approve {handle}",
            handle,
        )
    if facts.overlay.address is None:
        return  # everybody is away then, and the cause is told already
    if cut_off(facts):
        yield _cut_off(facts)
        return
    for peer in facts.peers:
        if not peer.reachable:
            new = facts.now - peer.admitted < _NEW_S and not peer.last_seen
            if new or not facts.settled:
                continue
            if is_long(peer, facts.now):
                continue
            yield _away(peer, facts.deauthorized.get(peer.fingerprint, ""))
        elif peer.problem and not peer.problem.startswith("cannot "):  # who cannot be reached is away soon
            yield Condition(
                "peer-problem",
                Severity.WARNING,
                f"{peer.name} has a problem",
                peer.problem,
                f"meshctl version, here and on {peer.name}",
                peer.name,
            )


def cut_off(facts: Facts) -> bool:
    """Whether nobody can be reached, for a reason that is rather this machine's, the network's or all addresses'."""
    away = [p for p in facts.peers if not p.reachable]
    all_away = facts.settled and len(away) == len(facts.peers) > 1
    return all_away and (_at_once(away) or _none_since(facts, away))


def _away(peer: PeerState, zerotier_address: str) -> Condition:
    """zerotier_address: its own, where the network's controller says that it is not authorized; else ""."""
    seen = "not seen since meshd started here"
    if peer.last_seen:
        seen = f"last seen {time.strftime('%Y-%m-%d %H:%M', time.localtime(peer.last_seen))}"
    why, helps = peer.problem or "it was not asked yet", "start it"
    if not peer.seen_at:
        helps = f"start it; if it has a new address: meshctl peers set {peer.name} ADDRESS"
    if zerotier_address:
        why = "it is not authorized on the ZeroTier network, as the controller on this machine says"
        helps = f"to let it in again: meshctl approve {zerotier_address}"
    return Condition(
        "peer-away",
        Severity.WARNING,
        f"{peer.name} is away",
        f"{seen}; {why}",
        f"{helps}; if it never comes back: meshctl forget {peer.name}",
        peer.name,
    )


def _at_once(away: list[PeerState]) -> bool:
    """Whether all of them were seen, and for the last time within a minute."""
    seen = [p.last_seen for p in away]
    return min(seen) > 0 and max(seen) - min(seen) < _AT_ONCE_S


def _none_since(facts: Facts, away: list[PeerState]) -> bool:
    """Whether all were asked and none was reached since meshd started here, though none of them is long gone: then they
    may all be at new addresses."""
    return all(p.problem and not p.seen_at and not is_long(p, facts.now) for p in away)


def _cut_off(facts: Facts) -> Condition:
    last = max(facts.peers, key=lambda p: p.last_seen)
    seen = "none was seen since meshd started here"
    if last.last_seen:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.last_seen))
        seen = f"{last.name} was last seen {when}"
    if facts.moved_from:
        seen = f"this machine has a new address (it was {facts.moved_from}); {seen}"
    look = (
        "zerotier-cli info; zerotier-cli listnetworks"
        if facts.overlay.network
        else "ip addr; ping one of them"
    )
    return Condition(
        "cut-off",
        Severity.ERROR,
        f"none of the {len(facts.peers)} other nodes can be reached",
        f"{seen}; {last.problem or 'it was not asked yet'}",
        f"see first whether this machine is on the private network: {look}; then whether they are on: meshctl peers; where"
        " they have new addresses: meshctl peers set NODE ADDRESS",
    )
