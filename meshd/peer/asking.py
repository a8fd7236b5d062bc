"""The peer API for pairing, from the member's side: joining without an invite. The rules are in mesh/approval.py."""

from __future__ import annotations

from meshd.mesh.approval import Approval
from meshd.mesh.join_requests import JoinRequest
from meshd.peer.nonces import Nonces
from meshd.peer.welcome import Welcome, check_protocol
from meshd.principal import Principal
from meshd.wire import Ask, AskAnswer, Asked, AskingId, Nothing, Reveal


class Asking:
    """POST /ask, /ask/reveal, /ask/look, /ask/withdraw, in this order."""

    def __init__(self, approval: Approval, welcome: Welcome, nonces: Nonces) -> None:
        """nonces: limits the rate of requests, too. Not shared with the invites', which must work in a flood of them."""
        self._approval = approval
        self._welcome = welcome
        self._nonces = nonces

    async def ask(self, caller: Principal, asked: Ask) -> Asked:
        """Take the commitment, return a nonce. Raises as `Approval.ask`, and MeshError BAD_REQUEST."""
        check_protocol(asked.protocol)
        request = self._approval.ask(asked, caller.address, self._nonces.give(caller.address))
        return Asked(id=request.id, nonce=request.nonce)

    async def reveal(self, _: Principal, revealed: Reveal) -> AskAnswer:
        """Verify the commitment and the signature. From then on people see the request."""
        return await self._answer(
            await self._approval.reveal(revealed.id, revealed.nonce, revealed.signature)
        )

    async def look(self, _: Principal, asked: AskingId) -> AskAnswer:
        """The state of the request, with the mesh's secrets once it is admitted. Raises MeshError NOT_FOUND."""
        return await self._answer(self._approval.look(asked.id))

    async def withdraw(self, _: Principal, asked: AskingId) -> Nothing:
        """Drop the request."""
        self._approval.withdraw(asked.id)
        return Nothing()

    async def _answer(self, request: JoinRequest) -> AskAnswer:
        if request.state == "denied":
            return AskAnswer(state="denied")
        if request.state != "admitted":
            return AskAnswer(state="waiting")
        admitted = await self._welcome.answer(self._welcome.secrets())
        return AskAnswer(state="admitted", admitted=admitted, here=request.here)
