"""Client of the other nodes' peer API. It dials from the overlay address, and pins each certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import aiohttp

from meshd.errors import Code, MeshError
from meshd.mesh import tls
from meshd.mesh.address_book import AddressBook, Where
from meshd.mesh.dial import CONNECT_S, exchange, explain, hung_up, open_session
from meshd.mesh.identity import Identity, fingerprint_of
from meshd.mesh.invites import host_port
from meshd.wire import Hello, Member, Nothing, verbs
from meshd.wire.verbs import A, Q, Verb


@dataclass(slots=True)
class _Line:
    """One session. key: its address and certificates. calls: requests under way. ended: closed to new requests."""

    key: tuple[object, ...]
    session: aiohttp.ClientSession
    calls: int = 0
    ended: bool = False


class PeerClient:
    """Keeps one keep-alive session a member.

    Members come as arguments, from the roster. The only state is open connections, which are dropped where address or
    certificate changed.
    """

    def __init__(
        self,
        identity: Identity,
        local_address: Callable[[], str | None],
        address_book: AddressBook | None = None,
    ) -> None:
        """local_address: returns this node's overlay address, None while it has none."""
        self._identity = identity
        self._local_address = local_address
        self._whereabouts = address_book or AddressBook()
        self._lines: dict[str, _Line] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def call(self, peer: Member, verb: Verb[Q, A], asked: Q) -> A:
        """Call a member. Raises MeshError PEER_UNREACHABLE, NO_OVERLAY, or the peer's own error."""
        where = self._whereabouts.of(peer)
        try:
            with self._line(peer, where) as session:
                async with asyncio.timeout(verb.within_s):
                    try:
                        return await exchange(session, *where, verb, asked)
                    except (aiohttp.ClientError, OSError) as exc:
                        if session.closed or not hung_up(exc):
                            raise
                    return await exchange(session, *where, verb, asked)  # each call is idempotent
        except (aiohttp.ClientError, OSError) as exc:  # TimeoutError is an OSError
            raise explain(peer.name, *where, exc) from exc

    async def call_at(self, address: str, port: int, fingerprint: str, verb: Verb[Q, A], asked: Q) -> A:
        """Call the node with that fingerprint, and no other, where one of the two is no member. Raises as `call`."""
        pinned = aiohttp.Fingerprint(bytes.fromhex(fingerprint))  # checked before anything is sent
        try:
            async with asyncio.timeout(verb.within_s), open_session(self._local(), pinned) as session:
                return await exchange(session, address, port, verb, asked)
        except (aiohttp.ClientError, OSError) as exc:
            raise explain("", address, port, exc) from exc

    async def hello(self, address: str, port: int) -> Hello:
        """Ask who answers at an address, without sending anything else. Raises MeshError PEER_UNREACHABLE."""
        fingerprint = await self._fingerprint_at(address, port)
        hello = await self.call_at(address, port, fingerprint, verbs.HELLO, Nothing())
        if hello.fingerprint != fingerprint:
            raise MeshError(
                Code.PEER_UNREACHABLE,
                f"cannot trust {host_port(address, port)}",
                "it says it is another node than the one whose certificate it shows",
            )
        return hello

    def address_of(self, peer: Member) -> str:
        """The address at which a member is called: its stated one, or the override of the address book."""
        return self._whereabouts.of(peer)[0]

    # -- sessions --------------------------------------------------------------------------------------------------

    def keep_only(self, fingerprints: Iterable[str]) -> None:
        """Close the sessions of all others, as they are no members any more. Finishes calls under way first."""
        for gone in set(self._lines) - set(fingerprints):
            self._end(self._lines.pop(gone))

    async def close(self) -> None:
        """Close all sessions at once."""
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
