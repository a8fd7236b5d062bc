"""The roster: the replicated membership list, and the rules of its statements. Pure.

A roster maps each fingerprint to the winning statement: a last-writer-wins register. Merging is commutative,
associative and idempotent, so all nodes converge in whatever order they exchange.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from meshd.config import NODE_NAME
from meshd.config.zerotier import NODE_ADDRESS
from meshd.errors import Code, MeshError
from meshd.mesh import certificate
from meshd.wire import Joiner, Member

Entries = Mapping[str, Member]

_ENGINE_ID = re.compile(r"[A-Za-z0-9]{0,128}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_LATEST = 1e12  # seconds; later stamps are no times, and floats lose the fractions that order statements
_MARK = ("leaving_since", "leaving_stamp")
_AHEAD_MOST_S = 86400.0  # of this node's clock
_TICK = 0.001  # seconds between two statements of a node whose clock stands still or went back


def canonical(member: Member) -> str:
    """A statement as JSON with one spelling. Leaves out defaults, so that a newer node can add a field."""
    return _spelled(member.model_dump(exclude_defaults=True))


def _spelled(facts: dict[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def _weight(member: Member) -> tuple[bool, float, str]:
    facts = member.model_dump(exclude_defaults=True, exclude=set(_MARK))
    return (member.forgotten, member.stamp, _spelled(facts))


def _mark(member: Member) -> tuple[float, float]:
    return (member.leaving_stamp, member.leaving_since)


def merge(mine: Entries, theirs: Iterable[Member]) -> dict[str, Member]:
    """Merge two rosters: for each node the newest statement wins; content breaks ties; forgotten wins over all.

    The mark that a node leaves is a last-writer-wins register of its own, so it is merged by itself.
    """
    merged = dict(mine)
    for member in theirs:
        known = merged.get(member.fingerprint)
        merged[member.fingerprint] = member if known is None else _newest(known, member)
    return merged


def _newest(one: Member, two: Member) -> Member:
    if one == two:
        return one
    said = two if _weight(two) > _weight(one) else one
    marked = two if _mark(two) > _mark(one) else one
    return said.model_copy(update={key: getattr(marked, key) for key in _MARK})


def digest(entries: Entries) -> str:
    """sha256 (hex) over the canonical JSON of all statements, the forgotten ones too: equal digests, equal rosters."""
    lines = sorted(canonical(member) for member in entries.values())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def live(entries: Entries) -> list[Member]:
    """The live members, in the order of admission."""
    members = [member for member in entries.values() if not member.forgotten]
    return sorted(members, key=lambda member: (member.admitted, member.fingerprint))


def names(entries: Entries) -> dict[str, str]:
    """Fingerprint -> unique name of each live member.

    Two sides of a partition can admit the same name: the one admitted first keeps it, the others get `name~1a2b`.
    """
    taken: set[str] = set()
    called: dict[str, str] = {}
    for member in live(entries):
        name, letters = member.name, 4
        while name.casefold() in taken:
            name, letters = f"{member.name}~{member.fingerprint[:letters]}", letters + 4
        taken.add(name.casefold())
        called[member.fingerprint] = name
    return called


def next_stamp(now: float, previous: float = 0.0) -> float:
    """The stamp of a new statement: the time, or just after the previous stamp where the clock is behind that."""
    return min(max(now, previous + _TICK), _LATEST)


def check_member(member: Member) -> None:
    """Validate a statement: other nodes' text reaches files and terminals here. Raises ValueError that says why."""
    if not _FINGERPRINT.fullmatch(member.fingerprint):
        raise ValueError("its fingerprint is not 64 hex digits")
    if certificate.check(member.certificate) != member.fingerprint:
        raise ValueError("its certificate is another node's")
    for moment in (member.stamp, member.admitted, member.leaving_since, member.leaving_stamp):
        if not math.isfinite(moment) or not 0 <= moment <= _LATEST or math.copysign(1, moment) < 0:
            raise ValueError("it has a time that is none")
    for other in (member.admitted_by, member.forgotten_by):
        if other and not _FINGERPRINT.fullmatch(other):
            raise ValueError("it names a node by what is no fingerprint")
    _check_facts(member)


def check_joiner(joiner: Joiner) -> str:
    """Validate a joiner's document; its fingerprint. Raises MeshError BAD_NAME or BAD_REQUEST that says why."""
    if not NODE_NAME.fullmatch(joiner.name):
        raise MeshError(
            Code.BAD_NAME,
            "cannot admit a node of that name",
            "a name is 1 to 63 of the letters a-z, A-Z, digits, '.', '_' and '-', and begins and ends with a letter or digit",
            "choose another name: meshctl join --name NAME",
        )
    try:
        fingerprint = certificate.check(joiner.certificate)
        _check_facts(joiner)
    except ValueError as exc:
        raise MeshError(
            Code.BAD_REQUEST,
            "cannot admit this node",
            f"what it says of itself cannot be: {exc}",
            "update meshd there",
        ) from None
    return fingerprint


def _check_facts(facts: Joiner | Member) -> None:
    if not NODE_NAME.fullmatch(facts.name):
        raise ValueError("its name is not a node's name")
    try:
        address = ipaddress.ip_address(facts.address)
    except ValueError:
        raise ValueError("its address is not an IP address") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError("its address is not one machine's")
    if str(address) != facts.address:
        raise ValueError("its address is not in its usual spelling")
    if not all(0 < port < 65536 for port in (facts.peer_port, facts.swarm_port, facts.cluster_port)):
        raise ValueError("one of its ports is not from 1 to 65535")
    if not _ENGINE_ID.fullmatch(facts.kubo_id) or not _ENGINE_ID.fullmatch(facts.cluster_id):
        raise ValueError("one of its engines' ids is not letters and digits")
    if len(facts.site) > 63 or not (facts.site.isprintable()):
        raise ValueError("its site is not a printable word")
    if facts.zerotier and not NODE_ADDRESS.fullmatch(facts.zerotier):
        raise ValueError("its ZeroTier address is not 10 hex digits")


def member_of(joiner: Joiner, fingerprint: str, *, admitted_by: str, admitted: float, stamp: float) -> Member:
    """The statement that makes a joiner a member."""
    return Member(
        **joiner.model_dump(),
        fingerprint=fingerprint,
        admitted_by=admitted_by,
        admitted=admitted,
        stamp=stamp,
    )


def restated(member: Member, joiner: Joiner, now: float) -> Member:
    """`member` updated with its current document; the same object where nothing is new."""
    if all(getattr(member, key) == value for key, value in joiner):
        return member
    return member.model_copy(update={**joiner.model_dump(), "stamp": next_stamp(now, member.stamp)})


def with_leaving_mark(member: Member, since: float, now: float) -> Member:
    """`member` with the mark that it leaves since then (0: it stays); the same object where nothing is new."""
    if member.leaving_since == since:
        return member
    stamp = next_stamp(now, member.leaving_stamp)
    return member.model_copy(update={"leaving_since": since, "leaving_stamp": stamp})


def without_future_mark(member: Member, now: float) -> Member:
    """`member` without a leaving mark that is more than a day ahead of this clock: no later one could take it back."""
    if member.leaving_stamp <= now + _AHEAD_MOST_S:
        return member
    return member.model_copy(update=dict.fromkeys(_MARK, 0.0))


def staying(entries: Entries, without: str) -> list[Member]:
    """The members whose copies count when the node of that fingerprint goes: those that do not leave.

    Where all leave, the one that began last stays, so that all nodes agree on which one that is.
    """
    members = live(entries)
    others = [member for member in members if member.fingerprint != without]
    if stay := [member for member in others if not member.leaving_since]:
        return stay
    last = max(members, key=lambda member: (member.leaving_since, member.fingerprint), default=None)
    return [] if last is None or last.fingerprint == without else [last]


def forgotten(member: Member, by: str, now: float) -> Member:
    """The statement that `member` was forgotten by the node of that fingerprint."""
    return member.model_copy(
        update={"forgotten": True, "forgotten_by": by, "stamp": next_stamp(now, member.stamp)}
    )
