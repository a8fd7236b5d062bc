"""Placement: which nodes hold the replicas of an entry. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from meshd.model import Pin, Replicas

ANY_SIZE = 2**62  # bytes; no entry is larger


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node of the roster. away_s: seconds since it was last seen, 0 while it is reachable. free: bytes it offers.

    leaving: it keeps its replicas until others have them, and gets no new ones.
    """

    fingerprint: str
    cluster_id: str
    site: str = ""
    free: int = 0
    accepts: bool = True
    reachable: bool = True
    away_s: float = 0.0
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """New allocations for one pin. allocations: cluster peer ids, () for everywhere. why: for the log."""

    allocations: tuple[str, ...]
    why: str


def target(wanted: Replicas, nodes: int) -> int:
    """How many replicas there can be: never more than the nodes there are."""
    return nodes if wanted == "all" else min(wanted, nodes)


def choose(
    count: int,
    cid: str,
    size: int,
    candidates: Iterable[Candidate],
    *,
    keep: Sequence[str] = (),
    first: str = "",
) -> tuple[str, ...]:
    """Cluster ids of up to `count` nodes: those in `keep`, then the node `first`, then new sites, then the most room.

    It spreads over sites as failure domains where it can. Among equals the CID decides, so that entries spread.
    """
    by_id = {c.cluster_id: c for c in candidates}
    chosen = [i for i in keep if i in by_id][:count]
    left = [
        c
        for c in by_id.values()
        if c.cluster_id not in chosen and c.reachable and c.accepts and not c.leaving and c.free >= size
    ]
    while left and len(chosen) < count:
        sites = {_site(by_id[i]) for i in chosen}

        def rank(c: Candidate, sites: set[str] = sites) -> tuple[bool, bool, int, str]:
            spread = hashlib.sha256(f"{cid}{c.fingerprint}".encode()).hexdigest()
            return (c.fingerprint != first, _site(c) in sites, -c.free.bit_length(), spread)

        best = min(left, key=rank)
        left.remove(best)
        chosen.append(best.cluster_id)
    return tuple(chosen)


def _site(candidate: Candidate) -> str:
    return candidate.site or candidate.fingerprint


def initial(
    pin: Pin, candidates: Iterable[Candidate], *, own: str, without: Collection[str] = ()
) -> tuple[str, ...]:
    """Nodes for a new entry: () for everywhere, else the node `own` first. without: cluster ids to leave out."""
    if pin.wanted == "all":
        return ()
    able = [c for c in candidates if c.cluster_id not in without]
    return choose(pin.wanted, pin.cid, pin.size, able, first=own)


def takeover(
    pin: Pin, held: Sequence[str], missing: Collection[str], candidates: Iterable[Candidate]
) -> tuple[str, ...] | None:
    """Allocations with other nodes beside those that refused or are silent; None where no other node can.

    held: cluster ids of those that hold it. missing: fingerprints of those that were chosen and do not. It drops no
    node: that comes later, once all the others hold it.
    """
    if pin.wanted == "all" or not missing:
        return None
    nodes = [c for c in candidates if not c.leaving and c.fingerprint not in missing]
    new = choose(target(pin.wanted, len(nodes)), pin.cid, pin.size, nodes, keep=held)
    if len(new) <= len(held):
        return None
    return tuple(dict.fromkeys((*pin.allocations, *new)))


def plan(
    wanted: Replicas,
    cid: str,
    size: int,
    allocations: Sequence[str],
    candidates: Sequence[Candidate],
    *,
    heal_after_s: float,
) -> Change | None:
    """Repair one pin's allocations as nodes come and go: the change, or None where they are right.

    A node that is away for less than `heal_after_s` still counts: an outage of a minute moves nothing. It only adds
    replicas, or takes over from nodes that are gone; shrinking is a step of its own, after all are confirmed.
    """
    if wanted == "all":
        return Change((), "it is wanted on every node") if allocations else None
    counted = _counted(candidates, heal_after_s)
    good = [i for i in allocations if i in counted]
    if not good:
        return None  # it is everywhere, which is more than wanted; or no node is left to copy it from: see `lost`
    goal = target(wanted, len(counted))
    if len(good) >= goal:
        return None
    new = choose(goal, cid, size, candidates, keep=good)
    if len(new) <= len(good):
        return None  # nobody has room
    gone = len(allocations) - len(good)
    return Change(
        new, f"{gone} of its nodes are gone" if gone else f"{goal} copies are possible now, not {len(good)}"
    )


def largest_short(
    wanted: Replicas, allocations: Sequence[str], candidates: Sequence[Candidate], *, heal_after_s: float
) -> int | None:
    """Up to which size `plan` changes the allocations of an entry; None where it changes those of none, whatever its size.

    So of all entries with the same allocations one look tells which are short.
    """
    if plan(wanted, "", 0, allocations, candidates, heal_after_s=heal_after_s) is None:
        return None
    if wanted == "all":
        return ANY_SIZE
    free = max(
        c.free
        for c in candidates
        if c.cluster_id not in allocations and c.reachable and c.accepts and not c.leaving
    )
    return min(free, ANY_SIZE)  # a node may say any number, and SQLite takes none of 64 bits


def lost(allocations: Sequence[str], candidates: Sequence[Candidate], *, heal_after_s: float) -> bool:
    """Whether every allocated node is gone, or away for longer than an outage."""
    return bool(allocations) and not _counted(candidates, heal_after_s).intersection(allocations)


def _counted(candidates: Sequence[Candidate], heal_after_s: float) -> set[str]:
    return {c.cluster_id for c in candidates if c.reachable or c.away_s < heal_after_s}


def elected(own: str, reachable: Iterable[str]) -> bool:
    """Leader election: whether this node re-allocates, as the one with the lowest live fingerprint."""
    return own <= min(reachable, default=own)
