"""Client of the other nodes' peer API. It dials from the overlay address, and each certificate is pinned."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from pydantic import BaseModel

from meshd.errors import Code, MeshError
from meshd.mesh import tls
from meshd.mesh.address_book import AddressBook, Where
from meshd.mesh.dial import CONNECT_S, exchange, explain, hung_up, open_session, url
from meshd.mesh.identity import Identity, fingerprint_of
from meshd.mesh.invites import host_port
from meshd.wire import (
    Admitted,
    Ask,
    AskAnswer,
    Asked,
    AskingId,
    Challenge,
    Confirmed,
    ConfirmRequest,
    Heartbeat,
    Hello,
    Member,
    PeerJoinRequest,
    Released,
    ReleaseRequest,
    Removal,
    Removals,
    Reveal,
    Roster,
)

_M = TypeVar("_M", bound=BaseModel)
_BEAT_S = 5.0
_ROSTER_S = 15.0
_REMOVALS_S = 30.0
_CONFIRM_S = 30.0  # the other side may have to wait for its disk
_RELEASE_S = 60.0
_JOIN_S = 20.0
_LOOK_S = 10.0


@dataclass(slots=True)
class _Line:
    """key: what it was opened for. calls: under way. ended: nobody is to use it any more."""

    key: tuple[object, ...]
    session: aiohttp.ClientSession
    calls: int = 0
    ended: bool = False


class PeerClient:
    """One keep-alive session a member. The members come as arguments, from the roster; nothing is remembered of them
    but open connections, which are dropped where address or certificate changed."""

    def __init__(
        self,
        identity: Identity,
        local_address: Callable[[], str | None],
        address_book: AddressBook | None = None,
    ) -> None:
        """local_address: this node's overlay address now, None while it has none."""
        self._identity = identity
        self._local_address = local_address
        self._whereabouts = address_book or AddressBook()
        self._lines: dict[str, _Line] = {}
        self._closing: set[asyncio.Task[None]] = set()

    # -- members: each raises MeshError PEER_UNREACHABLE, NO_OVERLAY, or what the peer answered ---------------------

    async def beat(self, peer: Member, beat: Heartbeat) -> Heartbeat:
        """Exchange the facts of the moment."""
        return await self._call(peer, "POST", "/beat", Heartbeat, _BEAT_S, body=beat)

    async def roster(self, peer: Member) -> Roster:
        """Its roster."""
        return await self._call(peer, "GET", "/roster", Roster, _ROSTER_S)

    async def push_roster(self, peer: Member, roster: Roster) -> Roster:
        """Give it ours; its roster after it has taken ours in."""
        return await self._call(peer, "POST", "/roster", Roster, _ROSTER_S, body=roster)

    async def confirm(self, peer: Member, cids: list[str]) -> Confirmed:
        """Which of these (2,000 at most) it holds durably."""
        return await self._call(
            peer, "POST", "/confirm", Confirmed, _CONFIRM_S, body=ConfirmRequest(cids=cids)
        )

    async def removals(self, peer: Member, after: int) -> Removals:
        """The removals that it recorded, without the first `after` ones."""
        return await self._call(peer, "GET", "/removals", Removals, _REMOVALS_S, query={"after": str(after)})

    async def push_removals(self, peer: Member, removals: list[Removal]) -> None:
        """Tell it of removals at once, before it asks."""
        body = Removals(removals=removals, total=len(removals))
        await self._call(peer, "POST", "/removals", _Nothing, _REMOVALS_S, body=body)

    async def release(self, peer: Member, cid: str) -> Released:
        """Ask it to let go of an entry at once; it checks that this node owns it."""
        return await self._call(peer, "POST", "/release", Released, _RELEASE_S, body=ReleaseRequest(cid=cid))

    # -- strangers -------------------------------------------------------------------------------------------------

    async def hello(self, address: str, port: int) -> Hello:
        """Who answers there. Nothing is sent but the question. Raises MeshError PEER_UNREACHABLE."""
        fingerprint = await self._fingerprint_at(address, port)
        hello = await self._ask(address, port, fingerprint, "GET", "/hello", Hello, CONNECT_S)
        if hello.fingerprint != fingerprint:
            raise MeshError(
                Code.PEER_UNREACHABLE,
                f"cannot trust {host_port(address, port)}",
                "it says it is another node than the one whose certificate it shows",
            )
        return hello

    async def challenge(self, address: str, port: int, fingerprint: str) -> Challenge:
        """A nonce to sign, from the node of that fingerprint and no other."""
        return await self._ask(address, port, fingerprint, "POST", "/challenge", Challenge, _JOIN_S)

    async def join(self, address: str, port: int, fingerprint: str, request: PeerJoinRequest) -> Admitted:
        """Ask to be admitted, the node of that fingerprint and no other: the token must reach nobody else."""
        return await self._ask(address, port, fingerprint, "POST", "/join", Admitted, _JOIN_S, request)

    async def ask(self, address: str, port: int, fingerprint: str, request: Ask) -> Asked:
        """Ask to be admitted without an invite; a person decides there. See `pairing.ask` for the order of the calls."""
        return await self._ask(address, port, fingerprint, "POST", "/ask", Asked, _JOIN_S, request)

    async def reveal(self, address: str, port: int, fingerprint: str, request: Reveal) -> AskAnswer:
        """Reveal what the request was committed to. It can be sent again where the answer was lost."""
        return await self._ask(address, port, fingerprint, "POST", "/ask/reveal", AskAnswer, _JOIN_S, request)

    async def look(self, address: str, port: int, fingerprint: str, request_id: str) -> AskAnswer:
        """How the request stands. Raises MeshError NOT_FOUND where the member does not know it any more."""
        body = AskingId(id=request_id)
        return await self._ask(address, port, fingerprint, "POST", "/ask/look", AskAnswer, _LOOK_S, body)

    async def withdraw(self, address: str, port: int, fingerprint: str, request_id: str) -> None:
        """Take the request back."""
        body = AskingId(id=request_id)
        await self._ask(address, port, fingerprint, "POST", "/ask/withdraw", _Nothing, _LOOK_S, body)

    def address_of(self, peer: Member) -> str:
        """Where that member is called: what it states, or where it was found since."""
        return self._whereabouts.of(peer)[0]

    # -- sessions --------------------------------------------------------------------------------------------------

    def keep_only(self, fingerprints: Iterable[str]) -> None:
        """Hang up on everybody else: they are no members any more. Calls under way are finished first."""
        for gone in set(self._lines) - set(fingerprints):
            self._end(self._lines.pop(gone))

    async def close(self) -> None:
        """Hang up on all, at once."""
        for line in self._lines.values():
            self._hang_up(line)
        self._lines.clear()
        await asyncio.gather(*self._closing)

    @contextlib.contextmanager
    def _line(self, peer: Member, where: Where) -> Iterator[aiohttp.ClientSession]:
        local = self._local()
        key = (where, peer.certificate, local)
        line = self._lines.get(peer.fingerprint)
        if line is None or line.key != key:
            if line is not None:
                self._end(line)
            line = _Line(key, open_session(local, tls.client_context(self._identity, peer.certificate)))
            self._lines[peer.fingerprint] = line
        line.calls += 1
        try:
            yield line.session
        finally:
            line.calls -= 1
            if line.ended and not line.calls:
                self._hang_up(line)

    def _end(self, line: _Line) -> None:
        line.ended = True
        if not line.calls:
            self._hang_up(line)

    def _hang_up(self, line: _Line) -> None:
        task = asyncio.create_task(line.session.close(), name="peer-hang-up")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _local(self) -> str:
        local = self._local_address()
        if local is None:
            raise MeshError(
                Code.NO_OVERLAY,
                "cannot call another node",
                "this machine has no overlay address now",
                "meshctl status",
            )
        return local

    # -- one call --------------------------------------------------------------------------------------------------

    async def _call(
        self,
        peer: Member,
        method: str,
        path: str,
        model: type[_M],
        total_s: float,
        *,
        body: BaseModel | None = None,
        query: dict[str, str] | None = None,
    ) -> _M:
        where = self._whereabouts.of(peer)
        target = url(*where, path, query)
        try:
            with self._line(peer, where) as session:
                async with asyncio.timeout(total_s):
                    try:
                        return await exchange(session, method, target, model, body)
                    except (aiohttp.ClientError, OSError) as exc:
                        if session.closed or not hung_up(exc):
                            raise
                    return await exchange(session, method, target, model, body)  # each call may be made twice
        except (aiohttp.ClientError, OSError) as exc:  # TimeoutError is an OSError
            raise explain(peer.name, *where, exc) from exc

    async def _ask(
        self,
        address: str,
        port: int,
        fingerprint: str,
        method: str,
        path: str,
        model: type[_M],
        total_s: float,
        body: BaseModel | None = None,
    ) -> _M:
        pinned = aiohttp.Fingerprint(bytes.fromhex(fingerprint))  # checked before anything is sent
        try:
            async with asyncio.timeout(total_s), open_session(self._local(), pinned) as session:
                return await exchange(session, method, url(address, port, path), model, body)
        except (aiohttp.ClientError, OSError) as exc:
            raise explain("", address, port, exc) from exc

    async def _fingerprint_at(self, address: str, port: int) -> str:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(
                    address, port, ssl=tls.stranger_context(), local_addr=(self._local(), 0)
                )
            shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return fingerprint_of(shown.getpeercert(binary_form=True) or b"")
        except OSError as exc:
            raise explain("", address, port, exc) from exc
        finally:
            if writer is not None:
                writer.transport.abort()


class _Nothing(BaseModel):
    """An answer that says only that it was done."""
