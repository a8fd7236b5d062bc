"""Pairing, from the member's side: hears nodes that ask to join, shows them to people, admits those that are approved.

sas.py says which attacks this withstands, join_requests.py what is kept and for how long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from meshd.errors import Code, MeshError
from meshd.mesh import admission, certificate, sas
from meshd.mesh.join_requests import VISIBLE_S, JoinRequest, PendingRequests
from meshd.mesh.state import MeshState
from meshd.mesh.store import MeshStore
from meshd.wire import Approved, Ask, JoinRequestView, Member

_LOG = structlog.get_logger(part="mesh")
_ON_THE_OTHER = {
    Code.NAME_TAKEN: "on that machine type: meshctl join NETWORK --name NAME",
    Code.FORGOTTEN: "that machine is told so, and how to join as a new node",
}


class Approval:
    """The requests to join at this member. `ask` to `withdraw` serve the asking node, the rest people."""

    def __init__(
        self,
        store: MeshStore,
        secrets: Callable[[], object],
        *,
        on_asked: Callable[[JoinRequestView], None] = lambda _: None,
        on_joined: Callable[[Member], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """secrets: raises MeshError where this node cannot hand the secrets to a node that it admits.

        on_asked: called in the event loop when a request becomes visible. on_joined: called for each new member.
        """
        self._store = store
        self._secrets = secrets
        self._on_asked = on_asked
        self._on_joined = on_joined
        self._monotonic = monotonic
        self._wall = now
        self._requests = PendingRequests(monotonic)
        self._one_at_a_time = asyncio.Lock()

    # -- the node that asks ----------------------------------------------------------------------------------------

    def ask(self, ask: Ask, source: str, nonce: str) -> JoinRequest:
        """Store a node's commitment. source: its IP address. nonce: this member's, fresh, 64 hex digits.

        Raises MeshError NO_MESH, BUSY, DENIED, NAME_TAKEN, FORGOTTEN, BAD_NAME, BAD_REQUEST.
        """
        mesh = self._mesh()
        return self._requests.commit(
            source=source,
            fingerprint=admission.check_asking(mesh, ask.joiner),
            joiner=ask.joiner,
            mesh=mesh.id,
            commitment=ask.commitment,
            nonce=nonce,
        )

    async def reveal(self, request_id: str, nonce: str, signature: str) -> JoinRequest:
        """Verify the commitment and the key; then show the request to people, or admit a node that is a member already.

        Idempotent. Raises MeshError NOT_FOUND, DENIED (the request has ended then), BUSY, and what
        `MeshStore.admit_asked` raises.
        """
        mesh = self._mesh()
        request = self._requests.find(request_id)
        why = self._why_false(request, nonce, signature)
        if why:
            self._requests.drop(request)
            raise MeshError(Code.DENIED, "cannot admit this node", why, "type again: meshctl join NETWORK")
        if request.state != "committed":
            return request
        if admission.known(mesh, request.fingerprint) is not None:  # it has lost the response
            await self._admit(request)
            return request
        code = sas.code(self._store.fingerprint, request.nonce, request.fingerprint, nonce, request.joiner)
        self._requests.show(request, code)
        _LOG.info("a node asks to join", name=request.joiner.name, address=request.source, id=request.handle)
        self._on_asked(self._view(request))
        return request

    def look(self, request_id: str) -> JoinRequest:
        """The request in its current state. Raises MeshError NOT_FOUND, NO_MESH, FORGOTTEN."""
        mesh = self._mesh()
        request = self._requests.find(request_id)
        if request.state == "waiting" and admission.known(mesh, request.fingerprint) is not None:
            self._requests.decide(request, "admitted")  # by another member; it has proved its key here
        return request

    def withdraw(self, request_id: str) -> None:
        """Drop a request that its node has taken back. Does nothing where there is none."""
        self._requests.withdraw(request_id)

    # -- the person who decides ------------------------------------------------------------------------------------

    def views(self) -> list[JoinRequestView]:
        """The requests that wait for a person, the oldest first."""
        mesh = self._store.mesh
        self._requests.keep_only(mesh.id if mesh is not None and not self._store.forgotten else "")
        known = mesh.entries if mesh is not None else {}
        return [self._view(one) for one in self._requests.waiting() if one.fingerprint not in known]

    async def approve(self, ref: str, code: str) -> Approved:
        """Admit the node that shows this code. ref: the id that `views` gives, or the node's name.

        Idempotent shortly after. Raises MeshError NOT_FOUND, BAD_REQUEST (several of that name), DENIED (another code;
        the third one ends the request), NAME_TAKEN, FORGOTTEN, NO_MESH, and what the store raises where it cannot
        write.
        """
        self._mesh()
        async with self._one_at_a_time:
            request = self._requests.pick(ref, answered=True)
            self._requests.check_code(request, code)
            if request.state == "waiting":
                await self._admit_for_a_person(request)
        return Approved(name=self._store.name_of(request.fingerprint), fingerprint=request.fingerprint)

    def deny(self, ref: str) -> JoinRequestView:
        """Deny a request; its key may not ask again for ten minutes. Raises MeshError NOT_FOUND, BAD_REQUEST."""
        request = self._requests.pick(ref)
        self._requests.decide(request, "denied")
        _LOG.info("a node was denied", name=request.joiner.name, address=request.source, id=request.handle)
        return self._view(request)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _admit_for_a_person(self, request: JoinRequest) -> None:
        request.here = True
        try:
            await self._admit(request)
        except MeshError as exc:
            if exc.code not in _ON_THE_OTHER:
                request.here = False
                raise
            self._requests.drop(request)  # its node asks anew, and hears why
            title = f"cannot admit {request.joiner.name}"
            raise MeshError(exc.code, title, exc.detail, _ON_THE_OTHER[exc.code]) from exc

    async def _admit(self, request: JoinRequest) -> None:
        before = request.state
        self._secrets()  # before it becomes a member: without the secrets there is no response to it
        request.state = "admitting"
        try:
            member, new = await self._store.admit_asked(request.joiner)
        except BaseException:
            # A client that disconnects does not stop the write: then the next `look` finds it in the roster.
            request.state = before
            raise
        self._requests.decide(request, "admitted")
        _LOG.info("member admitted", name=member.name, fingerprint=member.fingerprint, again=not new)
        if new:
            self._on_joined(member)

    def _mesh(self) -> MeshState:
        mesh = self._store.mesh
        self._requests.keep_only(mesh.id if mesh is not None else "")
        if mesh is None or self._store.forgotten:
            raise MeshError(
                Code.NO_MESH,
                "cannot admit anybody",
                "that node is a member of no mesh",
                "see which nodes are members: on one of them type meshctl peers",
            )
        return mesh

    def _why_false(self, request: JoinRequest, nonce: str, signature: str) -> str:
        if not sas.commits_to(request.commitment, request.fingerprint, nonce):
            return "it revealed another number than the one it had committed to"
        signed = sas.statement(self._store.fingerprint, request.nonce, nonce, request.joiner)
        try:
            genuine = certificate.verify(request.joiner.certificate, bytes.fromhex(signature), signed)
        except ValueError:
            genuine = False
        return "" if genuine else "its signature is not by the key of its certificate, or over something else"

    def _view(self, request: JoinRequest) -> JoinRequestView:
        wall = self._wall() - self._monotonic()
        return JoinRequestView(
            id=request.handle,
            stage="mesh",
            node=request.joiner.zerotier,
            name=request.joiner.name,
            address=request.source or request.joiner.address,
            fingerprint=request.fingerprint,
            code=request.code,
            since=wall + request.revealed,
            until=wall + request.revealed + VISIBLE_S,
        )
