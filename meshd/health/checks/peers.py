"""Checks of the other nodes: away, new, full, of another version or clock; and whether this node is still a member."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from meshd import __version__
from meshd.conditions import Check, Facts
from meshd.health.facts import AuditFacts
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, PeerState, Severity
from meshd.overlay.health import OverlayFacts

_AT_ONCE_S = 60.0
_NEW_S = 20.0  # for so long a new member that was not polled yet does not count as away
_LONG_S = 7 * 86400.0
_APART_S = 60.0


def members(facts: Facts) -> Iterator[Condition]:
    """Whether this node is still a member; which members are new, away, or answer with a problem."""
    mesh, overlay, audit = facts.of(MeshFacts), facts.of(OverlayFacts), facts.of(AuditFacts)
    if mesh.forgotten_by:
        yield Condition(
            "forgotten",
            Severity.ERROR,
            f"the mesh {mesh.mesh_name} has forgotten this node",
            f"{mesh.forgotten_by} typed: meshctl forget",
            "meshctl leave, then ask a member for: meshctl invite",
        )
    for name, by, how in audit.joined:
        yield Condition(
            "member-joined",
            Severity.INFO,
            f"{name} joined, {how} by {by}",
            "",
            "meshctl peers",
            name,
            depends_on=("forgotten",),
        )
    if overlay.state.address is None:
        return  # all are away then, and another condition reports the cause
    if cut_off(facts):
        yield _cut_off(facts)
    for peer in mesh.peers:
        if not peer.reachable:
            new = facts.now - peer.admitted < _NEW_S and not peer.last_seen
            if new or not overlay.settled:
                continue
            if is_long(peer, facts.now):
                continue
            yield _away(peer, mesh.deauthorized.get(peer.fingerprint, ""))
        elif peer.problem and not peer.problem.startswith("cannot "):  # an unreachable one is away soon
            yield Condition(
                "peer-problem",
                Severity.WARNING,
                f"{peer.name} has a problem",
                peer.problem,
                f"meshctl version, here and on {peer.name}",
                peer.name,
                depends_on=("forgotten", "cut-off"),
            )


def cut_off(facts: Facts) -> bool:
    """Whether no member is reachable, and the cause is likely this machine, the network, or new addresses of all."""
    mesh, overlay = facts.of(MeshFacts), facts.of(OverlayFacts)
    away = [p for p in mesh.peers if not p.reachable]
    all_away = overlay.settled and len(away) == len(mesh.peers) > 1
    return all_away and (_at_once(away) or _none_since(facts, away))


def _away(peer: PeerState, zerotier_address: str) -> Condition:
    """zerotier_address: the peer's, where the network's controller does not authorize it; else ""."""
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
        depends_on=("forgotten", "cut-off"),
    )


def _at_once(away: list[PeerState]) -> bool:
    """Whether all were seen before, and vanished within one minute."""
    seen = [p.last_seen for p in away]
    return min(seen) > 0 and max(seen) - min(seen) < _AT_ONCE_S


def _none_since(facts: Facts, away: list[PeerState]) -> bool:
    """Whether all were polled and none was reached since meshd started here, though none is long gone.

    Then all of them may be at new addresses.
    """
    return all(p.problem and not p.seen_at and not is_long(p, facts.now) for p in away)


def _cut_off(facts: Facts) -> Condition:
    mesh, overlay = facts.of(MeshFacts), facts.of(OverlayFacts)
    last = max(mesh.peers, key=lambda p: p.last_seen)
    seen = "none was seen since meshd started here"
    if last.last_seen:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.last_seen))
        seen = f"{last.name} was last seen {when}"
    if mesh.moved_from:
        seen = f"this machine has a new address (it was {mesh.moved_from}); {seen}"
    look = (
        "zerotier-cli info; zerotier-cli listnetworks"
        if overlay.state.network
        else "ip addr; ping one of them"
    )
    return Condition(
        "cut-off",
        Severity.ERROR,
        f"none of the {len(mesh.peers)} other nodes can be reached",
        f"{seen}; {last.problem or 'it was not asked yet'}",
        f"see first whether this machine is on the private network: {look}; then whether they are on: meshctl peers; where"
        " they have new addresses: meshctl peers set NODE ADDRESS",
        depends_on=("forgotten",),
    )


def is_long(peer: PeerState, now: float) -> bool:
    """Whether a peer is away for so long that somebody should decide. now: wall clock seconds."""
    return not peer.reachable and 0 < peer.last_seen < now - _LONG_S


def long_away(facts: Facts) -> Iterator[Condition]:
    """Nodes that are away for so long that somebody should decide whether to forget them."""
    mesh, overlay = facts.of(MeshFacts), facts.of(OverlayFacts)
    if overlay.state.address is None:
        return
    for peer in mesh.peers:
        if is_long(peer, facts.now):
            days = int((facts.now - peer.last_seen) // 86400)
            yield Condition(
                "peer-lost",
                Severity.ERROR,
                f"{peer.name} has been away for {days} days",
                "its copies count for nothing; where other nodes had room, they were made there",
                f"start it; if it never comes back: meshctl forget {peer.name}",
                peer.name,
                depends_on=("forgotten",),
            )


def taking_part(facts: Facts) -> Iterator[Condition]:
    """Nodes that are reachable and take no replicas: full, leaving, or without their services."""
    mesh = facts.of(MeshFacts)
    if mesh.leaving:
        yield Condition(
            "leaving",
            Severity.INFO,
            "this node leaves the mesh",
            "it takes nothing new, and goes once the others have what it holds",
            "to stay: press Ctrl-C where meshctl leave runs; or: sudo systemctl restart meshd",
        )
    for peer in mesh.peers:
        if not peer.reachable or peer.problem:
            continue
        if peer.leaving:
            yield Condition(
                "peer-leaving",
                Severity.INFO,
                f"{peer.name} leaves the mesh",
                "it hands over what it holds; its copies count no more",
                "meshctl peers shows when it is gone",
                peer.name,
            )
            continue
        if not peer.ready:
            yield Condition(
                "peer-not-ready",
                Severity.WARNING,
                f"{peer.name} is there, but serves nothing",
                "its meshd answers, and its kubo or its cluster does not run; what it holds cannot be read there",
                f"on {peer.name}: meshctl status",
                peer.name,
                visible_after_s=60.0,  # a starting node is not ready yet
            )
        elif not peer.accepts:
            yield Condition(
                "peer-full",
                Severity.WARNING,
                f"{peer.name} takes no more content",
                "its disk is at its floor, or what it offers to others is used up; new copies go elsewhere",
                f"on {peer.name}: meshctl status; to have room again, free some there or add a machine: meshctl invite",
                peer.name,
            )


def versions(facts: Facts) -> Iterator[Condition]:
    """Members that run another version of meshd than this node."""
    mesh = facts.of(MeshFacts)
    for peer in mesh.peers:
        if not peer.reachable or peer.problem or not peer.version or peer.version == __version__:
            continue
        older = _numbers(peer.version) < _numbers(__version__)
        yield Condition(
            "peer-version",
            Severity.INFO,
            f"{peer.name} runs {'an older' if older else 'another'} meshd",
            f"it runs {peer.version}, this node {__version__}; neighbouring versions work together",
            f"update meshd {f'on {peer.name}' if older else 'on this node'} when it suits; meshctl peers shows all versions",
            peer.name,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """A version's comparable part: 0.10.2 -> (0, 10, 2)."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version)[:3])


def clocks(facts: Facts) -> Iterator[Condition]:
    """Clock skew: removals, invites and the roster depend on each node's own clock."""
    mesh = facts.of(MeshFacts)
    for peer in mesh.peers:
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


CHECKS = tuple(Check(look.__name__, look) for look in (members, long_away, taking_part, versions, clocks))
