"""A joiner without an invite: the whole pairing in the background, or one call at a time."""

from __future__ import annotations

import asyncio

from meshd.mesh import sas
from meshd.mesh.pairing import Confirm, ask
from meshd.mesh.protocol import PROTOCOL
from meshd.mesh.secrets import Secrets
from meshd.wire import Admitted, Ask, AskAnswer, Asked, AskingId, CodeEvent, Reveal, StepEvent, Wire, verbs
from tests.mesh_room.nodes import Node
from tests.waiting import until

AGAIN = "meshctl join 8056c2e21c000001"


class Stranger:
    """`meshctl join NETWORK` on a machine, with what its person sees. Begin it with `begin`."""

    def __init__(self, node: Node, *members: Node) -> None:
        self.node = node
        self.found: list[tuple[str, int]] = [(member.listen, member.port) for member in members]
        self.events: list[Wire] = []
        self.confirm: Confirm | None = None  # its person's answer about an admitting member
        self.rounds = 0  # how often it asked for the members found
        self._task: asyncio.Task[Admitted] | None = None

    def begin(self, total_s: float = 60.0, settle_s: float = 0.1, **other: object) -> Stranger:
        self._task = asyncio.create_task(
            ask(
                self._found,
                self.node.joiner(**other),
                self.node.identity,
                self.node.peers,
                self._emit,
                again=AGAIN,
                confirm=self.confirm,
                total_s=total_s,
                look_s=0.02,
                settle_s=settle_s,
            )
        )
        return self

    def _found(self) -> list[tuple[str, int]]:
        self.rounds += 1
        return list(self.found)

    async def goes_on(self, rounds: int = 15) -> None:
        """Return when it has gone on for much longer than its pause after a refusal."""
        until_round = self.rounds + rounds
        await until(lambda: self.rounds >= until_round or self._ended())
        assert not self._ended()

    async def _emit(self, event: Wire) -> None:
        self.events.append(event)

    @property
    def shown(self) -> list[CodeEvent]:
        return [event for event in self.events if isinstance(event, CodeEvent)]

    @property
    def said(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, StepEvent))

    async def code(self, number: int = 1) -> str:
        """The code that its person reads, the `number`th."""
        await until(lambda: len(self.shown) >= number or self._ended())
        return self.shown[number - 1].code

    def code_at(self, member: Node) -> str:
        """The newest that it shows for that member."""
        where = f"{member.listen}:{member.port}"
        return [event.code for event in self.shown if event.address == where][-1]

    async def outcome(self) -> Admitted:
        assert self._task is not None
        return await asyncio.wait_for(self._task, 20)

    async def becomes_member(self) -> None:
        admitted = await self.outcome()
        Secrets(admitted.swarm_key, admitted.cluster_secret).save(self.node.folder)
        await self.node.store.adopt(admitted)

    async def stop(self) -> None:
        """Ctrl-C."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self) -> bool:
        assert self._task is not None
        return self._task.done()


async def begin(node: Node, member: Node, nonce: str, **other: object) -> Asked:
    """The first call. other: what `node` says of itself."""
    request = Ask(
        protocol=PROTOCOL,
        commitment=sas.commitment(node.fingerprint, nonce),
        joiner=node.joiner(**other),
    )
    return await node.peers.call_at(member.listen, member.port, member.fingerprint, verbs.ASK, request)


async def reveal(node: Node, member: Node, asked: Asked, nonce: str, **other: object) -> AskAnswer:
    """The second call. other: members of the request that are to be wrong."""
    signed = sas.statement(member.fingerprint, asked.nonce, nonce, node.joiner())
    facts: dict[str, object] = {
        "id": asked.id,
        "nonce": nonce,
        "signature": node.identity.sign(signed).hex(),
    }
    request = Reveal.model_validate(facts | other)
    return await node.peers.call_at(member.listen, member.port, member.fingerprint, verbs.REVEAL, request)


async def look(node: Node, member: Node, asked: Asked) -> AskAnswer:
    """The third call: the state of the request."""
    return await node.peers.call_at(
        member.listen, member.port, member.fingerprint, verbs.LOOK, AskingId(id=asked.id)
    )


async def asks(node: Node, member: Node) -> Asked:
    """Both calls: a person at the member sees the request now."""
    nonce = sas.new_nonce()
    asked = await begin(node, member, nonce)
    assert (await reveal(node, member, asked, nonce)).state == "waiting"
    return asked
