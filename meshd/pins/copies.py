"""Which node holds what: asks each node, this one's kubo directly, another one through its own meshd.

The cluster's own status does not do: a peer that has not heard of a pin is absent from it, and a dead one leaves it
after 16 s, so that the rest reads as complete (measured).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meshd.errors import MeshError
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.pins.gate import Gate
from meshd.wire import Confirmed, ConfirmRequest, Copy, Member, verbs

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
_AT_ONCE = 500  # CIDs a request


@dataclass(slots=True)
class Question:
    """One CID that is awaited on one node. fetched: blocks.

    changed: set whenever `copy` or `fetched_bytes` changes. since: when the state, or the progress, last changed.
    """

    cid: str
    copy: Copy
    since: float
    fetched: int = 0
    fetched_bytes: int = 0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Asker:
    """Polls one node about many CIDs: one request at a time batches all that are due, each at its own pace."""

    def __init__(self, node: str, ask: Callable[[list[str]], Awaitable[Confirmed]]) -> None:
        self._node = node
        self._ask = ask
        self._open: set[int] = set()
        self._questions: dict[int, Question] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def open(self, cid: str, changed: asyncio.Event | None = None) -> Question:
        """Begin to poll a CID. `close` it. changed: an event to share among several nodes."""
        now = asyncio.get_running_loop().time()
        unknown = Copy(node=self._node, state="unknown")
        question = Question(cid, unknown, since=now, due=now, changed=changed or asyncio.Event())
        self._questions[id(question)] = question
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"ask-{self._node}")
        return question

    def close(self, question: Question) -> None:
        self._questions.pop(id(question), None)
        self._wake.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._questions:
                self._wake.clear()
                wait = min(q.due for q in self._questions.values()) - loop.time()
                if wait > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait):
                            await self._wake.wait()
                    continue
                due = [q for q in self._questions.values() if q.due <= loop.time()][:_AT_ONCE]
                await self._ask_about(due)
        finally:
            self._task = None

    async def _ask_about(self, questions: list[Question]) -> None:
        answer, why = None, ""
        try:
            answer = await self._ask(list({q.cid for q in questions}))
        except MeshError as exc:
            why = exc.detail or exc.title
        now = asyncio.get_running_loop().time()
        for question in questions:
            if answer is None:
                copy = Copy(node=self._node, state="unknown", detail=why)
            else:
                state = answer.states.get(question.cid, "missing")
                copy = Copy(node=self._node, state=state, detail=answer.details.get(question.cid, ""))
            if copy != question.copy:
                if copy.state != question.copy.state:
                    question.since = now
                question.copy = copy
                question.changed.set()
            fetched = 0 if answer is None else answer.fetched.get(question.cid, 0)
            if fetched != question.fetched:
                question.fetched, question.since = fetched, now
            fetched_bytes = 0 if answer is None else answer.fetched_bytes.get(question.cid, 0)
            if fetched_bytes != question.fetched_bytes:
                question.fetched_bytes = fetched_bytes
                question.changed.set()
            question.due = now + question.pause
            question.pause = min(question.pause * 2, LONGEST_PAUSE)


class Copies:
    """Answers for this node, and asks the others."""

    def __init__(self, gate: Gate, store: MeshStore, peers: PeerClient) -> None:
        self._gate = gate
        self._store = store
        self._peers = peers
        self._askers: dict[str, Asker] = {}

    async def local(self, cids: Sequence[str]) -> Confirmed:
        """What this node holds. `held` means pinned in kubo, and durable on the disk."""
        held = await self._gate.held(list(dict.fromkeys(cids)))
        answer = Confirmed(states={})
        for cid in cids:
            if cid in held:
                answer.states[cid] = "held"
            elif cid in self._gate.fetching:
                answer.states[cid] = "fetching"
                fetched = self._gate.fetching[cid]
                answer.fetched[cid], answer.fetched_bytes[cid] = fetched.blocks, fetched.size
            elif cid in self._gate.refused:
                answer.states[cid] = "refused"
                answer.details[cid] = self._gate.refused[cid]
            else:
                answer.states[cid] = "missing"
        return answer

    def asker(self, member: Member) -> Asker:
        """The asker of a member, shared by all callers that wait for it."""
        asker = self._askers.get(member.fingerprint)
        if asker is None:
            fingerprint = member.fingerprint

            async def ask(cids: list[str]) -> Confirmed:
                if fingerprint == self._store.fingerprint:
                    return await self.local(cids)
                current = self._store.by_fingerprint(fingerprint) or member  # its address may have changed
                return await self._peers.call(current, verbs.CONFIRM, ConfirmRequest(cids=cids))

            asker = self._askers[fingerprint] = Asker(member.name, ask)
        return asker

    async def ask_once(self, member: Member, cids: Sequence[str]) -> Confirmed:
        """Ask one node once. Raises MeshError PEER_UNREACHABLE."""
        answer = Confirmed(states={})
        for start in range(0, len(cids), _AT_ONCE):
            part = list(cids[start : start + _AT_ONCE])
            if member.fingerprint == self._store.fingerprint:
                one = await self.local(part)
            else:
                one = await self._peers.call(member, verbs.CONFIRM, ConfirmRequest(cids=part))
            answer.states |= one.states
            answer.details |= one.details
        return answer

    async def table(self, cids: Sequence[str], members: Iterable[Member]) -> dict[str, list[Copy]]:
        """CID -> each node's answer; `unknown`, with the reason, for a node that does not answer."""
        nodes = list(members)
        answers = await asyncio.gather(*(self.ask_once(m, cids) for m in nodes), return_exceptions=True)
        result: dict[str, list[Copy]] = {cid: [] for cid in cids}
        for member, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, MeshError):
                why = answer.detail or answer.title
                for cid in cids:
                    result[cid].append(Copy(node=member.name, state="unknown", detail=why))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for cid in cids:
                    state = answer.states.get(cid, "missing")
                    result[cid].append(
                        Copy(node=member.name, state=state, detail=answer.details.get(cid, ""))
                    )
        return result

    async def stop(self) -> None:
        for asker in self._askers.values():
            await asker.stop()
