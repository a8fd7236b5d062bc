"""What a node that has no invite may ask a member, in this order; the rules are in mesh/approval.py."""

from __future__ import annotations

from meshd.mesh.approval import Approval
from meshd.mesh.join_requests import JoinRequest
from meshd.peer.nonces import Nonces
from meshd.peer.welcome import Welcome, check_protocol
from meshd.principal import Principal
from meshd.wire import Ask, AskAnswer, Asked, AskingId, Nothing, Reveal


class Asking:
    """POST /ask, /ask/reveal, /ask/look, /ask/withdraw."""

    def __init__(self, approval: Approval, welcome: Welcome, nonces: Nonces) -> None:
        """nonces: rations the requests too. They are not shared with those of invites, which must go on working."""
        self._approval = approval
        self._welcome = welcome
        self._nonces = nonces

    async def ask(self, caller: Principal, asked: Ask) -> Asked:
        """Take the commitment, give a nonce. Raises what `Approval.ask` does, and MeshError BAD_REQUEST."""
        check_protocol(asked.protocol)
        request = self._approval.ask(asked, caller.address, self._nonces.give(caller.address))
        return Asked(id=request.id, nonce=request.nonce)

    async def reveal(self, _: Principal, revealed: Reveal) -> AskAnswer:
        """See that it was committed to and is signed; from here on people see the request."""
        return await self._answer(
            await self._approval.reveal(revealed.id, revealed.nonce, revealed.signature)
        )

    async def look(self, _: Principal, asked: AskingId) -> AskAnswer:
        """How it stands; with the mesh's secrets where it was admitted. Raises MeshError NOT_FOUND."""
        return await self._answer(self._approval.look(asked.id))

    async def withdraw(self, _: Principal, asked: AskingId) -> Nothing:
        """The node does not ask any more."""
        self._approval.withdraw(asked.id)
        return Nothing()

    async def _answer(self, request: JoinRequest) -> AskAnswer:
        if request.state == "denied":
            return AskAnswer(state="denied")
        if request.state != "admitted":
            return AskAnswer(state="waiting")
        admitted = await self._welcome.answer(self._welcome.secrets())
        return AskAnswer(state="admitted", admitted=admitted, here=request.here)
