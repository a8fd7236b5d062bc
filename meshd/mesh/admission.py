"""The rules of admission: by an invite, or by a person's approval. Pure: state in, state out."""

from __future__ import annotations

import dataclasses
import hmac
import secrets

from meshd.errors import Code, MeshError
from meshd.mesh import invites, roster
from meshd.mesh.secrets import Secrets
from meshd.mesh.state import InviteRecord, MeshState
from meshd.wire import Admitted, Joiner, Member

_KEPT_AFTER = 30 * 86400.0  # seconds to keep an expired invite, so that a late joiner hears why
_ASK_AGAIN = "ask a member for a new one: meshctl invite"


def issue(state: MeshState, expires_s: float, now: float) -> tuple[MeshState, InviteRecord, str]:
    """Issue an invite: the state with the token's hash, the record, and the token (64 hex digits, stored nowhere)."""
    kept = {key: record for key, record in state.invites.items() if now < record.expires + _KEPT_AFTER}
    token = secrets.token_hex(32)
    invite_id = secrets.token_hex(4)
    while invite_id in kept:
        invite_id = secrets.token_hex(4)
    record = InviteRecord(
        id=invite_id, token_hash=invites.token_hash(token), created=now, expires=now + expires_s
    )
    return dataclasses.replace(state, invites={**kept, invite_id: record}), record, token


def revoke(state: MeshState, invite_id: str) -> MeshState:
    """Revoke an invite: the state in which it admits nobody. Raises MeshError NOT_FOUND."""
    record = state.invites.get(invite_id)
    if record is None or record.revoked:
        raise MeshError(
            Code.NOT_FOUND,
            f"cannot revoke the invite {invite_id}",
            "this node issued none of that id",
            "see the open ones: meshctl invite --list",
        )
    spent = record.model_copy(update={"revoked": True})
    return dataclasses.replace(state, invites={**state.invites, invite_id: spent})


def line(
    state: MeshState, record: InviteRecord, token: str, *, issuer: str, addresses: tuple[str, ...]
) -> str:
    """The invite line for the next machine's owner. issuer: fingerprint. addresses: `ip:port` of its peer API."""
    return invites.encode(
        invites.Invitation(
            mesh_name=state.name,
            mesh_id=state.id,
            overlay="zerotier" if state.network else "static",
            addresses=addresses,
            fingerprint=issuer,
            invite_id=record.id,
            token=token,
            expires=record.expires,
            network=state.network,
        )
    )


def admit(
    state: MeshState, invite_id: str, token: str, joiner: Joiner, *, me: str, now: float
) -> tuple[MeshState, Member, bool]:
    """Admit a joiner by its token: the state with the member and the spent token; the member; whether it is new.

    Idempotent: the same node may come again with the token that it has spent. Raises MeshError BAD_INVITE (unknown or
    revoked), INVITE_USED, INVITE_EXPIRED, NAME_TAKEN, FORGOTTEN, BAD_NAME, BAD_REQUEST; then the token is not spent.
    """
    fingerprint = roster.check_joiner(joiner)
    record = state.invites.get(invite_id)
    if record is None or not hmac.compare_digest(record.token_hash, invites.token_hash(token)):
        raise _refused(Code.BAD_INVITE, "this node did not issue it, or withdrew it long ago")
    again = record.used_by == fingerprint
    if record.used_by and not again:
        raise _refused(Code.INVITE_USED, "another node has joined with it: each invite admits one")
    if record.revoked and not again:
        raise _refused(Code.BAD_INVITE, "it was revoked")
    if now >= record.expires and not again:
        raise _refused(Code.INVITE_EXPIRED, "its time is over")
    member = known(state, fingerprint)
    _check_name_free(
        state,
        joiner.name,
        fingerprint,
        "choose another one; the invite is still good: meshctl join --name NAME",
    )
    stated = _statement(member, joiner, fingerprint, me, now)
    if again and stated is member:
        return state, stated, False
    used = record.model_copy(update={"used_by": fingerprint})
    entries = {**state.entries, fingerprint: stated}
    changed = dataclasses.replace(state, entries=entries, invites={**state.invites, invite_id: used})
    return changed, stated, member is None


def check_asking(state: MeshState, joiner: Joiner) -> str:
    """Check a node that asks without an invite; its fingerprint. Raises as `admit_asked`."""
    fingerprint = roster.check_joiner(joiner)
    known(state, fingerprint)
    _check_name_free(state, joiner.name, fingerprint, "choose another one: meshctl join NETWORK --name NAME")
    return fingerprint


def admit_asked(state: MeshState, joiner: Joiner, *, me: str, now: float) -> tuple[MeshState, Member, bool]:
    """Admit a node that a person approved: the state with the member; the member; whether it is new.

    Raises MeshError NAME_TAKEN, FORGOTTEN, BAD_NAME, BAD_REQUEST.
    """
    fingerprint = check_asking(state, joiner)
    member = state.entries.get(fingerprint)
    stated = _statement(member, joiner, fingerprint, me, now)
    if stated is member:
        return state, stated, False
    entries = {**state.entries, fingerprint: stated}
    return dataclasses.replace(state, entries=entries), stated, member is None


def why_unusable(admitted: Admitted, *expected: str) -> str:
    """What is wrong with an admission response, "" for nothing. expected: fingerprints that must be members."""
    members = {member.fingerprint for member in admitted.roster.members if not member.forgotten}
    try:
        Secrets(admitted.swarm_key, admitted.cluster_secret)
    except ValueError as exc:
        return str(exc)
    return "" if members.issuperset(expected) else "it is about other members"


def known(state: MeshState, fingerprint: str) -> Member | None:
    """The live member with that key; None for a stranger. Raises MeshError FORGOTTEN."""
    member = state.entries.get(fingerprint)
    if member is not None and member.forgotten:
        raise MeshError(
            Code.FORGOTTEN,
            "cannot join",
            "the mesh has forgotten this node's key for good",
            "move the state folder of this machine away, start meshd again and join as a new node",
        )
    return member


def _statement(member: Member | None, joiner: Joiner, fingerprint: str, me: str, now: float) -> Member:
    if member is not None:
        return roster.restated(member, joiner, now)
    return roster.member_of(joiner, fingerprint, admitted_by=me, admitted=now, stamp=roster.next_stamp(now))


def _check_name_free(state: MeshState, name: str, fingerprint: str, hint: str) -> None:
    for member in roster.live(state.entries):
        if member.fingerprint != fingerprint and member.name.casefold() == name.casefold():
            raise MeshError(Code.NAME_TAKEN, f"cannot join as {name}", "another member has that name", hint)


def _refused(code: Code, cause: str) -> MeshError:
    return MeshError(code, "cannot join with this invite", cause, _ASK_AGAIN)
