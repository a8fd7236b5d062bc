"""The peer API for strangers: who this node is, a nonce to sign, and joining by invite."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from meshd.errors import Code, MeshError
from meshd.mesh import certificate, invites
from meshd.mesh.protocol import PROTOCOL
from meshd.mesh.store import MeshStore
from meshd.peer.nonces import Nonces
from meshd.peer.welcome import Welcome, check_protocol
from meshd.principal import Principal
from meshd.wire import Admitted, Challenge, Hello, Member, Nothing, PeerJoinRequest

_LOG = structlog.get_logger(part="peer-api")


class Strangers:
    """GET /hello, POST /challenge, POST /join."""

    def __init__(
        self,
        store: MeshStore,
        welcome: Welcome,
        nonces: Nonces,
        on_joined: Callable[[Member], None],
    ) -> None:
        """on_joined: called in the event loop for each new member."""
        self._store = store
        self._welcome = welcome
        self._nonces = nonces
        self._on_joined = on_joined

    async def hello(self, _: Principal, __: Nothing) -> Hello:
        """All that a stranger may learn."""
        return Hello(protocol=PROTOCOL, fingerprint=self._store.fingerprint)

    async def challenge(self, caller: Principal, _: Nothing) -> Challenge:
        """A nonce to sign. Raises MeshError BUSY."""
        return Challenge(nonce=self._nonces.give(caller.address))

    async def join(self, _: Principal, request: PeerJoinRequest) -> Admitted:
        """Admit a joiner that holds an invite and proves the key of its certificate.

        Raises MeshError BAD_REQUEST, DENIED (nonce or signature), and what `MeshStore.admit` raises.
        """
        check_protocol(request.protocol)
        if not self._nonces.take(request.nonce):
            raise MeshError(
                Code.DENIED,
                "cannot admit this node",
                "the challenge it answers was used before, or is over a minute old",
                "type again: meshctl join",
            )
        self._check_signature(request)
        mesh = self._store.mesh
        if mesh is not None and request.mesh_id not in ("", mesh.id):
            raise MeshError(
                Code.BAD_INVITE,
                "cannot join with this invite",
                "it names another mesh than this node's",
                "ask a member for a new one: meshctl invite",
            )
        secrets = self._welcome.secrets()  # before the token is spent, as the response needs them
        member, new = await self._store.admit(request.invite_id, request.token, request.joiner)
        _LOG.info("member admitted", name=member.name, fingerprint=member.fingerprint, again=not new)
        if new:
            self._on_joined(member)
        return await self._welcome.answer(secrets)

    def _check_signature(self, request: PeerJoinRequest) -> None:
        signed = invites.statement(
            request.nonce, self._store.fingerprint, request.invite_id, request.token, request.joiner
        )
        try:
            genuine = certificate.verify(request.joiner.certificate, bytes.fromhex(request.signature), signed)
        except ValueError:
            genuine = False
        if not genuine:
            raise MeshError(
                Code.DENIED,
                "cannot admit this node",
                "its signature is not by the key of its certificate, or over something else",
                "type again: meshctl join",
            )
