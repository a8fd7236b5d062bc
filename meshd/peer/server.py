"""The peer API: HTTPS on the overlay address and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from aiohttp import hdrs, web

from meshd.errors import Code, MeshError
from meshd.http.adapter import Api
from meshd.http.route import Route
from meshd.mesh import tls
from meshd.mesh.identity import Identity, fingerprint_of
from meshd.mesh.store import MeshStore
from meshd.peer import listener
from meshd.peer.scrape import ScraperToken
from meshd.principal import Access, Principal
from meshd.serving.limiter import Limit, Origin
from meshd.serving.listener import HEAD_S, Listener, Tls

_HANDSHAKE_S = 5.0
_GRACE_S = 1.0
_GOODBYE_S = 2.0
_STOP_S = 5.0

_LOG = structlog.get_logger(part="peer-api")


def _member(transport: asyncio.BaseTransport) -> Origin | None:
    """The origin after the handshake: a member, where the caller has proved the key of a certificate of the roster."""
    der = listener.certificate_of(transport)
    return Origin(listener.MEMBER, fingerprint_of(der)) if der is not None else None


class PeerServer:
    """One listener. After a stop it can be started again, on another address."""

    def __init__(
        self,
        identity: Identity,
        store: MeshStore,
        *,
        token_file: Path | None = None,
        limits: Mapping[str, Limit] = listener.LIMITS,
        handshake_s: float = _HANDSHAKE_S,
        head_s: float = HEAD_S,
        grace_s: float = _GRACE_S,
    ) -> None:
        """token_file: the scraper's, None for none. limits: of connections at a time, by kind of origin.

        handshake_s, head_s: seconds for the handshake, and for a request's head. grace_s: seconds for which an idle
        connection keeps its slot when others want one.
        """
        self._identity = identity
        self._store = store
        self._token = ScraperToken(token_file)
        self._api = Api(listener.SURFACE, self._identify)
        self._limits = dict(limits)
        self._handshake_s = handshake_s
        self._head_s = head_s
        self._grace_s = grace_s
        self._context: ssl.SSLContext | None = None
        self._trusted: set[str] = set()
        self._connections: listener.Connections | None = None
        self._listener: Listener | None = None
        self._neighbours: frozenset[str] = frozenset()  # IP addresses of the members
        self.listening: tuple[str, int] | None = None
        store.subscribe(self._trust_members)

    def serve(self, routes: Iterable[Route]) -> None:
        """Add routes. Raises ValueError for one that exists already."""
        self._api.table.add(routes)

    async def start(self, address: str, port: int) -> None:
        """Listen on that address. port 0: any; see `listening`. Raises MeshError BUSY, NO_OVERLAY, BAD_CONFIG."""
        await self.stop()
        sock = await listener.bind(address, port)
        try:
            await self._serve(sock)
        except BaseException:
            sock.close()
            await self.stop()
            raise
        self.listening = (address, int(sock.getsockname()[1]))
        _LOG.info("peer API listening", address=self.listening[0], port=self.listening[1])

    async def _serve(self, sock: socket.socket) -> None:
        self._context = tls.server_context(self._identity, [])
        self._trusted = set()
        self._trust_members()
        self._connections = connections = listener.Connections(self._api)
        self._listener = Listener(
            self._limits,
            self._origin,
            protocol=connections,
            known=_member,
            head_s=self._head_s,
            grace_s=self._grace_s,
            tls=Tls(self._context, self._handshake_s, _GOODBYE_S),
        )
        self._listener.guard(connections)
        self._listener.start(sock)

    async def stop(self) -> None:
        """Stop listening; requests under way get a few seconds. Idempotent."""
        accepts, connections = self._listener, self._connections
        self._listener = self._connections = self._context = self.listening = None
        if accepts is not None:
            await accepts.stop()
        if connections is not None:
            connections.pre_shutdown()
            await connections.shutdown(_STOP_S)

    def _origin(self, connection: socket.socket) -> Origin:
        """The origin before the handshake, by IP address: strangers with unfinished ones take no member's slot."""
        address = str(connection.getpeername()[0])
        return Origin(listener.NEIGHBOUR if address in self._neighbours else listener.STRANGER, address)

    def _trust_members(self) -> None:
        # The forgotten stay trust anchors, so that a response tells them, rather than a failed handshake.
        if self._context is None:
            return
        new = [member for member in self._store.roster().members if member.fingerprint not in self._trusted]
        tls.trust(self._context, [member.certificate for member in new])
        self._trusted.update(member.fingerprint for member in new)
        self._neighbours = frozenset(member.address for member in self._store.members())

    async def _identify(self, request: web.BaseRequest, access: Access) -> Principal:
        """The live member that calls. Checked at each request, as a connection may outlive the membership."""
        address = listener.address_of(request.transport)
        if access == "scraper" and await self._token.is_in(request.headers.get(hdrs.AUTHORIZATION, "")):
            return Principal(label=f"a scraper at {address}", how="scraper", address=address)
        der = listener.certificate_of(request.transport)
        member = self._store.by_fingerprint(fingerprint_of(der)) if der is not None else None
        if member is None:
            return Principal(label=address, how="stranger", address=address)
        if member.forgotten:
            raise MeshError(
                Code.FORGOTTEN,
                "cannot answer this node",
                f"{self._store.name_of(member.forgotten_by)} had the mesh forget it",
                "type meshctl leave there; then join again with an invite of a member",
                by=member.forgotten_by,
            )
        name = self._store.name_of(member.fingerprint)
        return Principal(label=name, how="member", fingerprint=member.fingerprint, address=address)
