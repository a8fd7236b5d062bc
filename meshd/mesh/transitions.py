"""State transitions of membership: founding, adoption, merging, a node's own statement, forgetting. Pure.

State in, state out, as in admission.py. `me` is this node's fingerprint, `now` wall clock seconds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable

from meshd.config import NODE_NAME
from meshd.errors import Code, MeshError
from meshd.mesh import roster
from meshd.mesh.state import MeshState, in_a_mesh, need
from meshd.wire import Admitted, Joiner, Member

_MESH_ID = re.compile(r"[0-9a-f]{32}")


def found(
    current: MeshState | None,
    own: Joiner,
    *,
    name: str,
    mesh_id: str,
    secrets_digest: str,
    network: str,
    me: str,
    now: float,
) -> MeshState:
    """A mesh with this node as its only member. Raises MeshError BAD_NAME, IN_OTHER_MESH, BAD_REQUEST."""
    if not NODE_NAME.fullmatch(name):
        raise MeshError(
            Code.BAD_NAME,
            "cannot give the mesh that name",
            "a name is 1 to 63 of the letters a-z, A-Z, digits, '.', '_' and '-', and begins and ends with a letter or digit",
            "meshctl init --name archive",
        )
    _check_own(own, me)
    if current is not None:
        raise in_a_mesh(current)
    member = roster.member_of(own, me, admitted_by=me, admitted=now, stamp=roster.next_stamp(now))
    return MeshState(name, mesh_id, now, now, {me: member}, {}, secrets_digest, network)


def adopt(
    current: MeshState | None,
    admitted: Admitted,
    members: Iterable[Member],
    *,
    secrets_digest: str,
    network: str,
    me: str,
    now: float,
) -> tuple[MeshState, bool]:
    """The mesh of an admission response; whether this node was in no mesh before. members: its valid statements.

    Raises MeshError IN_OTHER_MESH, BAD_REQUEST (the response cannot be used).
    """
    entries = roster.merge({}, members)
    mine = entries.get(me)
    named = NODE_NAME.fullmatch(admitted.mesh_name) and _MESH_ID.fullmatch(admitted.mesh_id)
    if mine is None or mine.forgotten or not named:
        raise MeshError(
            Code.BAD_REQUEST,
            "cannot join",
            "the answer does not hold this node",
            "update meshd on both machines",
        )
    if current is None:
        name, mesh_id = admitted.mesh_name, admitted.mesh_id
        return MeshState(name, mesh_id, admitted.created, now, entries, {}, secrets_digest, network), True
    if current.id != admitted.mesh_id:
        raise in_a_mesh(current)
    return dataclasses.replace(current, entries=roster.merge(current.entries, entries.values())), False


def merge(
    current: MeshState | None,
    theirs: Iterable[Member],
    *,
    own: Joiner | None,
    leaving: float,
    me: str,
    now: float,
) -> tuple[MeshState, bool]:
    """The state with another member's statements merged; whether anything is new. Raises MeshError NO_MESH.

    own, leaving: this node's document and its leaving mark, which are restated where `theirs` differs; see `restate`.
    """
    known = need(current)
    entries = roster.merge(known.entries, [roster.without_future_mark(member, now) for member in theirs])
    mine = entries[me]
    if own is not None and not mine.forgotten:
        entries[me] = _restated(mine, own, leaving, now)
    if entries == known.entries:
        return known, False
    return dataclasses.replace(known, entries=entries), True


def restate(
    current: MeshState | None, own: Joiner, *, leaving: float, me: str, now: float
) -> tuple[MeshState, bool]:
    """The state with this node's own statement updated; whether that changes it.

    own: its document. leaving: since when it leaves, wall clock seconds; 0 that it stays. Raises MeshError NO_MESH,
    BAD_REQUEST.
    """
    _check_own(own, me)
    known = need(current)
    mine = known.entries[me]
    said = mine if mine.forgotten else _restated(mine, own, leaving, now)
    if said is mine:
        return known, False
    return _with(known, said), True


def mark_leaving(current: MeshState | None, leaving: float, *, me: str, now: float) -> MeshState:
    """The state in which this node leaves since then; 0: in which it stays. Raises MeshError NO_MESH."""
    known = need(current)
    return _with(known, roster.with_leaving_mark(known.entries[me], leaving, now))


def forget(
    current: MeshState | None, fingerprint: str, *, by: str, relying_on: Collection[str], now: float
) -> tuple[MeshState, bool]:
    """The state in which a node is no member any more, for good (a tombstone); False where it was forgotten before.

    by: fingerprint of the node that states it. relying_on: fingerprints of those that hold the node's content. Raises
    MeshError NOT_FOUND, NO_MESH; and BUSY where one of these does not stay any more (see `roster.staying`).
    """
    known = need(current)
    member = known.entries.get(fingerprint)
    if member is None:
        raise MeshError(
            Code.NOT_FOUND,
            "cannot forget that node",
            "the mesh does not know it",
            "see who is there: meshctl peers",
        )
    if member.forgotten:
        return known, False
    stay = {m.fingerprint for m in roster.staying(known.entries, fingerprint)}
    if not stay.issuperset(relying_on):
        raise MeshError(
            Code.BUSY,
            "cannot forget that node now",
            "others are leaving at this moment",
            "meshctl peers",
        )
    return _with(known, roster.forgotten(member, by, now)), True


def _with(known: MeshState, statement: Member) -> MeshState:
    return dataclasses.replace(known, entries={**known.entries, statement.fingerprint: statement})


def _restated(mine: Member, own: Joiner, leaving: float, now: float) -> Member:
    """`mine` updated with this node's current document and mark; the same object where nothing is new."""
    return roster.with_leaving_mark(roster.restated(mine, own, now), leaving, now)


def _check_own(own: Joiner, me: str) -> None:
    if roster.check_joiner(own) != me:
        raise MeshError(Code.BAD_REQUEST, "cannot speak for this node", "the certificate is another node's")
