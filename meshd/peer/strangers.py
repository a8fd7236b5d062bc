"""What a node answers to anybody: who it is, a number to sign, and whether the invite admits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from meshd.errors import Code, MeshError
from meshd.mesh import certificate, invites
from meshd.mesh.protocol import PROTOCOL, speaks
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.peer.call import Call
from meshd.peer.nonces import Nonces
from meshd.wire import Admitted, Challenge, Hello, Member, PeerJoinRequest

_LOG = structlog.get_logger(part="peer-api")


class Strangers:
    """GET /hello, POST /challenge, POST /join."""

    def __init__(
        self,
        store: MeshStore,
        secrets: Callable[[], Secrets],
        nonces: Nonces,
        on_joined: Callable[[Member], None],
        count_entries: Callable[[], Awaitable[int]],
    ) -> None:
        """secrets: those of the mesh, when somebody is admitted. on_joined: called in the loop for each new member.

        count_entries: how many the pinset has; 0 where that cannot be seen now.
        """
        self._store = store
        self._secrets = secrets
        self._nonces = nonces
        self._on_joined = on_joined
        self._count_entries = count_entries

    async def hello(self, call: Call) -> Hello:
        """All that a stranger may learn."""
        return Hello(protocol=PROTOCOL, fingerprint=self._store.fingerprint)

    async def challenge(self, call: Call) -> Challenge:
        """A number to sign. Raises MeshError BUSY."""
        return Challenge(nonce=self._nonces.give(call.remote))

    async def join(self, call: Call) -> Admitted:
        """Admit the holder of an invite who proves the key of its certificate.

        Raises MeshError BAD_REQUEST, DENIED (nonce or signature), and what `MeshStore.admit` raises.
        """
        request = call.read(PeerJoinRequest)
        if not speaks(request.protocol):
            raise MeshError(
                Code.BAD_REQUEST,
                "cannot admit this node",
                f"it speaks protocol {request.protocol} and this mesh {PROTOCOL}",
                "update meshd on the older of the two machines, then again: meshctl join",
            )
        if not self._nonces.take(request.nonce):
            raise MeshError(
                Code.DENIED,
                "cannot admit this node",
                "the challenge it answers was used before, or is over a minute old",
                "type again: meshctl join",
            )
        self._check_signature(request)
        secrets = self._secrets()  # before the token is spent: without them there is nothing to answer
        member, new = await self._store.admit(request.invite_id, request.token, request.joiner)
        mesh = self._store.mesh
        if mesh is None:
            raise MeshError(
                Code.NO_MESH, "cannot admit this node", "the node that made the invite has just left the mesh"
            )
        _LOG.info("member admitted", name=member.name, fingerprint=member.fingerprint, again=not new)
        if new:
            self._on_joined(member)
        return Admitted(
            mesh_name=mesh.name,
            mesh_id=mesh.id,
            created=mesh.created,
            swarm_key=secrets.swarm_key,
            cluster_secret=secrets.cluster_secret,
            roster=self._store.roster(),
            entries=await self._count_entries(),
        )

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
