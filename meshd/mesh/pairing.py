"""Pairing, from the joiner's side: joining without an invite. Asks every member that is found until a person admits it.

Every node that answers is a stranger, and may be anybody on the network. So no text of it is shown as it came, and
trust comes only from the code that people compare (see sas.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from meshd.errors import Code, MeshError
from meshd.mesh import admission, sas
from meshd.mesh.identity import Identity
from meshd.mesh.invites import host_port
from meshd.mesh.join_errors import (
    FINAL,
    RETRIED,
    bad_answer,
    not_approved,
    printable,
    refused,
    wrong_member,
)
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL, speaks
from meshd.wire import (
    Admitted,
    Ask,
    AskAnswer,
    AskingId,
    CodeEvent,
    ConfirmEvent,
    Emit,
    Joiner,
    Reveal,
    StepEvent,
    Wire,
    verbs,
)

Address = tuple[str, int]
Confirm = Callable[[ConfirmEvent], Awaitable[bool]]

TOTAL_S = 1800.0
_MOST = 8  # members asked at a time
_RETRY_MOST_S = 30.0
_PATIENCE_S = 25.0  # a member keeps a request for 30 s after the last poll
_LASTED_S = 60.0  # a conversation that lasted so long was a good one: retry without back-off
_SETTLE_S = 3.0  # after a refusal, for others to be found
_WITHDRAW_S = 3.0


async def ask(
    found: Callable[[], Iterable[Address]],
    own: Joiner,
    identity: Identity,
    peers: PeerClient,
    emit: Emit,
    *,
    again: str,
    confirm: Confirm | None = None,
    total_s: float = TOTAL_S,
    look_s: float = 1.0,
    settle_s: float = _SETTLE_S,
) -> Admitted:
    """Ask for admission at each address, and wait for the first member where a person approves. Writes nothing.

    found: returns the peer API addresses known by now; called every `look_s` seconds, as it may grow. again: what a
    person types to join again, as "meshctl join 8056c2e21c000001". confirm: whether the admitting member is the right
    one, which a person here knows by the code; anybody on the network could admit this node, to a mesh of its own.

    Emits StepEvent, and CodeEvent for each member that has heard this node. Cancelled, it takes its requests back.
    Raises MeshError DENIED, NAME_TAKEN, FORGOTTEN, BAD_NAME, BAD_REQUEST where every member that was found refuses;
    NOT_READY where nobody approves within `total_s` seconds.
    """
    asking = _Pairing(
        found=found,
        own=own,
        identity=identity,
        peers=peers,
        emit=emit,
        again=again,
        confirm=confirm,
        look_s=look_s,
        settle_s=settle_s,
    )
    limit = asyncio.timeout(total_s)
    try:
        async with limit:
            return await asking.run()
    except TimeoutError:
        if not limit.expired():
            raise
        raise asking.not_approved(total_s) from None
    finally:
        await asking.close()


class _RefusedError(Exception):
    """A member's final refusal."""

    def __init__(self, error: MeshError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class _Heard:
    """A request that a member keeps."""

    address: str
    port: int
    fingerprint: str
    id: str

    @property
    def where(self) -> tuple[str, int, str]:
        """Whom to call."""
        return self.address, self.port, self.fingerprint


class _Pairing:
    """One task an address, one conversation a member."""

    def __init__(
        self,
        *,
        found: Callable[[], Iterable[Address]],
        own: Joiner,
        identity: Identity,
        peers: PeerClient,
        emit: Emit,
        again: str,
        confirm: Confirm | None,
        look_s: float,
        settle_s: float,
    ) -> None:
        self._found = found
        self._own = own
        self._identity = identity
        self._peers = peers
        self._emit = emit
        self._again = again
        self._confirm = confirm
        self._confirming = asyncio.Lock()  # one question at a time
        self._look_s = look_s
        self._settle_s = settle_s
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[Address, asyncio.Task[None]] = {}
        self._failed: dict[Address, str] = {}  # address -> why the last attempt failed
        self._asked: dict[str, None] = {}  # addresses that have shown a code, in that order
        self._busy_with: set[str] = set()  # fingerprints
        self._heard: dict[str, _Heard] = {}  # by fingerprint
        self._refused: dict[str, MeshError] = {}  # by fingerprint
        self._refused_at = 0.0
        self._slots = asyncio.Semaphore(_MOST)
        self._hellos = asyncio.Semaphore(_MOST)
        self._emitting = asyncio.Lock()
        self._admitted: asyncio.Future[tuple[Admitted, str]] = self._loop.create_future()

    # -- all addresses ---------------------------------------------------------------------------------------------

    async def run(self) -> Admitted:
        while not self._admitted.done():
            for address in self._found():
                if address not in self._tasks:
                    self._tasks[address] = asyncio.create_task(self._follow(address), name="ask")
            if self._all_refused():
                raise list(self._refused.values())[-1]
            await asyncio.wait([self._admitted], timeout=self._look_s)
        admitted, how = self._admitted.result()
        await self._say(how)
        return admitted

    async def close(self) -> None:
        """Stop, and take back the requests at other members. Where one cannot be reached, its request expires there."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WITHDRAW_S):
                await asyncio.gather(*(self._withdraw(heard) for heard in self._heard.values()))
        if self._admitted.done() and not self._admitted.cancelled():
            self._admitted.exception()  # seen

    def not_approved(self, total_s: float) -> MeshError:
        """The error for no approval within that time."""
        failed = {host_port(*address): why for address, why in self._failed.items()}
        return not_approved(total_s, self._own.name, self._again, asked=self._asked, failed=failed)

    def _all_refused(self) -> bool:
        """Whether all found members have refused, and there was time to find others."""
        settled = all(task.done() or address in self._failed for address, task in self._tasks.items())
        return bool(self._refused) and settled and self._loop.time() >= self._refused_at + self._settle_s

    async def _withdraw(self, heard: _Heard) -> None:
        with contextlib.suppress(MeshError):
            await self._peers.call_at(*heard.where, verbs.WITHDRAW, AskingId(id=heard.id))

    async def _say(self, message: str) -> None:
        await self._tell(StepEvent(message=message))

    async def _tell(self, event: Wire) -> None:
        async with self._emitting:
            await self._emit(event)

    # -- one address -----------------------------------------------------------------------------------------------

    async def _follow(self, address: Address) -> None:
        try:
            await self._keep_asking(address)
        except Exception as exc:  # noqa: BLE001 -- whatever it is ends the pairing, which raises it
            if not self._admitted.done():
                self._admitted.set_exception(exc)

    async def _keep_asking(self, address: Address) -> None:
        """Ask one address again and again, until a member admits this node or the one there refuses for good."""
        delay = self._look_s
        while not self._admitted.done():
            began = self._loop.time()
            try:
                fingerprint = await self._who_is_at(address)
                if fingerprint == self._identity.fingerprint or fingerprint in self._refused:
                    return
                self._failed.pop(address, None)
                async with self._alone_with(fingerprint) as free:
                    if free:
                        await self._converse(*address, fingerprint)
                    else:
                        self._failed[address] = "it is asked at another address already"
                if fingerprint in self._refused:
                    return
            except MeshError as exc:
                await self._note(address, exc)
            lasted = self._loop.time() - began
            delay = self._look_s if lasted > _LASTED_S else min(delay * 2, _RETRY_MOST_S)
            await asyncio.sleep(delay)

    async def _who_is_at(self, address: Address) -> str:
        async with self._hellos:
            hello = await self._peers.hello(*address)
        if not speaks(hello.protocol):
            raise MeshError(
                Code.PEER_UNREACHABLE,
                f"cannot understand {host_port(*address)}",
                f"it speaks protocol {hello.protocol} and this node {PROTOCOL}",
                "update meshd on the older of the two machines",
            )
        return hello.fingerprint

    @contextlib.asynccontextmanager
    async def _alone_with(self, fingerprint: str) -> AsyncIterator[bool]:
        """Reserve a member, so that one with two addresses is asked once; whether it was free."""
        if fingerprint in self._busy_with:
            yield False
            return
        self._busy_with.add(fingerprint)
        try:
            async with self._slots:
                yield True
        finally:
            self._busy_with.discard(fingerprint)

    async def _note(self, address: Address, exc: MeshError) -> None:
        why = RETRIED.get(exc.code) or printable(exc.detail) or str(exc.code)
        where = host_port(*address)
        if self._failed.get(address) != why and where in self._asked:
            await self._say(f"{where} does not answer: {why}; asking it again")
        self._failed[address] = why

    # -- one member ------------------------------------------------------------------------------------------------

    async def _converse(self, address: str, port: int, fingerprint: str) -> None:
        """One conversation with a member, from commitment to answer. Returns, too, where it has lost the request.

        Raises MeshError where the caller should retry.
        """
        where = host_port(address, port)
        if not self._asked:  # else codes are on the screen already, and say enough
            await self._say(f"asking {where} to admit this node")
        try:
            await self._to_the_end(address, port, fingerprint)
        except _RefusedError as exc:
            await self._refuse(where, fingerprint, exc.error)
        except MeshError as exc:
            heard = self._heard.pop(fingerprint, None)
            if exc.code in FINAL:
                await self._refuse(where, fingerprint, refused(exc.code, self._again))
            elif exc.code is Code.NOT_FOUND:
                await self._say(f"{where} has forgotten the question; asking it again")
            else:
                if heard is not None and exc.code is not Code.PEER_UNREACHABLE:
                    await self._withdraw(heard)
                raise

    async def _refuse(self, where: str, fingerprint: str, error: MeshError) -> None:
        self._refused[fingerprint] = error
        self._refused_at = self._loop.time()
        await self._say(f"{where} refuses: {error.detail}")

    async def _to_the_end(self, address: str, port: int, fingerprint: str) -> None:
        mine = self._identity.fingerprint
        nonce = sas.new_nonce()
        asked = await self._peers.call_at(
            address,
            port,
            fingerprint,
            verbs.ASK,
            Ask(protocol=PROTOCOL, commitment=sas.commitment(mine, nonce), joiner=self._own),
        )
        heard = self._heard[fingerprint] = _Heard(address, port, fingerprint, asked.id)
        signed = sas.statement(fingerprint, asked.nonce, nonce, self._own)
        reveal = Reveal(id=asked.id, nonce=nonce, signature=self._identity.sign(signed).hex())
        answer = await self._peers.call_at(address, port, fingerprint, verbs.REVEAL, reveal)
        how, code = f"{host_port(address, port)} knows this node already", ""
        if answer.state == "waiting":
            code = sas.code(fingerprint, asked.nonce, mine, nonce, self._own)
            how = f"admitted by {host_port(address, port)}, which showed the code {code}"
            await self._show(host_port(address, port), code)
            answer = await self._wait(heard)
        del self._heard[fingerprint]
        if answer.state == "denied":
            raise _RefusedError(refused(Code.DENIED, self._again))
        admitted = self._usable(answer, fingerprint)
        if not answer.here:
            code = ""  # nobody has compared it
            await asyncio.wait(
                [self._admitted], timeout=self._settle_s
            )  # the member whose person approved goes first
        event = ConfirmEvent(address=host_port(address, port), code=code, fingerprint=fingerprint)
        async with self._confirming:
            if self._admitted.done():
                return
            if await self._is_right(event):
                self._admitted.set_result((admitted, how))
                return
        raise _RefusedError(wrong_member(self._own.name, self._again))

    async def _is_right(self, event: ConfirmEvent) -> bool:
        if self._confirm is None:
            return True
        async with self._emitting:
            await self._emit(event)
        return await self._confirm(event)

    async def _show(self, where: str, code: str) -> None:
        self._asked[where] = None
        await self._tell(CodeEvent(address=where, code=code))
        one = "waiting for a member to type" if len(self._asked) == 1 else "waiting for one of them to type"
        await self._tell(StepEvent(message=f"{one}: meshctl approve {self._own.name}", key="asking"))

    async def _wait(self, heard: _Heard) -> AskAnswer:
        """Poll for the decision. A member that is away for a moment still has the request when it is back."""
        answered = self._loop.time()
        while True:
            await asyncio.sleep(self._look_s)
            try:
                answer = await self._peers.call_at(*heard.where, verbs.LOOK, AskingId(id=heard.id))
            except MeshError as exc:
                gone = exc.code is Code.NOT_FOUND or exc.code in FINAL
                if gone or self._loop.time() > answered + _PATIENCE_S:
                    raise
                continue
            if answer.state != "waiting":
                return answer
            answered = self._loop.time()

    def _usable(self, answer: AskAnswer, fingerprint: str) -> Admitted:
        admitted = answer.admitted
        why = "it is empty"
        if admitted is not None:
            why = admission.why_unusable(admitted, self._identity.fingerprint, fingerprint)
        if admitted is None or why:
            raise _RefusedError(bad_answer(why))
        return admitted
