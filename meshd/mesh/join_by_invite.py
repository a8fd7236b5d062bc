"""Joining by invite, from the joiner's side."""

from __future__ import annotations

import time
from collections.abc import Callable

from meshd.errors import Code, MeshError
from meshd.mesh import admission, invites
from meshd.mesh.dial import WrongNodeError
from meshd.mesh.identity import Identity, grouped
from meshd.mesh.invites import Invitation
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL
from meshd.wire import Admitted, Joiner, Nothing, PeerJoinRequest, verbs

_TRIES = 2  # a lost response leaves the token spent, and a repeated request is answered again


async def join(
    invite_text: str,
    joiner: Joiner,
    identity: Identity,
    peers: PeerClient,
    *,
    now: Callable[[], float] = time.time,
) -> Admitted:
    """Ask the issuer of the invite, at each of its addresses in turn, to admit this node. Writes nothing.

    Raises MeshError BAD_INVITE, INVITE_EXPIRED, INVITE_USED, NAME_TAKEN, FORGOTTEN and any other error of the issuer;
    PEER_UNREACHABLE (which addresses, and why); DENIED where only other nodes than the issuer answer.
    """
    invitation = invites.decode(invite_text, now())
    if invitation.fingerprint == identity.fingerprint:
        raise MeshError(
            Code.BAD_INVITE,
            "cannot use this invite",
            "it was made on this machine, for another one",
            "type meshctl join on the other machine, and paste it there",
        )
    failures: list[MeshError] = []
    for text in invitation.addresses:
        try:
            address, port = invites.split_host_port(text)
        except ValueError:
            continue
        try:
            admitted = await _ask(address, port, invitation, joiner, identity, peers)
        except MeshError as exc:
            if exc.code is not Code.PEER_UNREACHABLE:
                raise
            failures.append(exc)
        else:
            _check(admitted, invitation, identity)
            return admitted
    raise _nobody(invitation, failures)


async def _ask(
    address: str, port: int, invitation: Invitation, joiner: Joiner, identity: Identity, peers: PeerClient
) -> Admitted:
    server = invitation.fingerprint
    for left in reversed(range(_TRIES)):
        nonce = (await peers.call_at(address, port, server, verbs.CHALLENGE, Nothing())).nonce
        signed = invites.statement(nonce, server, invitation.invite_id, invitation.token, joiner)
        request = PeerJoinRequest(
            protocol=PROTOCOL,
            invite_id=invitation.invite_id,
            token=invitation.token,
            mesh_id=invitation.mesh_id,
            nonce=nonce,
            signature=identity.sign(signed).hex(),
            joiner=joiner,
        )
        try:
            return await peers.call_at(address, port, server, verbs.JOIN, request)
        except MeshError as exc:
            if exc.code is not Code.PEER_UNREACHABLE or not left:
                raise
    raise AssertionError("unreachable")


def _check(admitted: Admitted, invitation: Invitation, identity: Identity) -> None:
    """Validate the response of the issuer, whose identity is proven already."""
    why = admission.why_unusable(admitted, identity.fingerprint, invitation.fingerprint)
    if not why and admitted.mesh_id != invitation.mesh_id:
        why = "it is about another mesh"
    if why:
        raise MeshError(
            Code.INTERNAL,
            f"cannot join {invitation.mesh_name}",
            f"the answer of the node that made the invite cannot be used: {why}",
            "see that both machines run a meshd of about the same age: meshctl version",
        )


def _nobody(invitation: Invitation, failures: list[MeshError]) -> MeshError:
    tried = ", ".join(invitation.addresses)
    wrong = [exc for exc in failures if isinstance(exc, WrongNodeError)]
    if wrong and len(wrong) == len(failures):
        return MeshError(
            Code.DENIED,
            f"cannot join {invitation.mesh_name}",
            f"at {tried} answers another node than the one that made the invite"
            f" (expected {grouped(invitation.fingerprint)}, found {grouped(wrong[0].fingerprint)}); nothing was told to it",
            "ask the one who sent the invite whether that machine was set up anew, and for a new one: meshctl invite",
        )
    causes = "; ".join(f"{exc.title.removeprefix('cannot ')}: {exc.detail}" for exc in failures)
    return MeshError(
        Code.PEER_UNREACHABLE,
        f"cannot join {invitation.mesh_name}",
        f"nobody answers at {tried} (cannot {causes})"
        if causes
        else f"no address in the invite can be used: {tried}",
        "see that this machine is on the same private network as the one that made the invite, and that meshd runs"
        " there (systemctl status meshd); then again: meshctl join",
    )
