"""The peer API: HTTPS on the overlay address and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
from aiohttp import web

from meshd.errors import Code, MeshError
from meshd.mesh import tls
from meshd.mesh.approval import Approval
from meshd.mesh.identity import Identity, fingerprint_of
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.peer import listener
from meshd.peer.asking import Asking
from meshd.peer.call import Access, Call
from meshd.peer.holder import Holder
from meshd.peer.members import Members
from meshd.peer.nonces import Nonces
from meshd.peer.routes import table
from meshd.peer.scrape import Scrape
from meshd.peer.strangers import Strangers
from meshd.peer.welcome import Welcome
from meshd.serving.limiter import Limit, Origin
from meshd.serving.listener import HEAD_S, Listener, Tls
from meshd.wire import Heartbeat, Member

__all__ = ["Holder", "PeerServer"]

_HANDSHAKE_S = 5.0
_GRACE_S = 1.0
_GOODBYE_S = 2.0
_CALL_S = 120.0  # longer than any caller waits
_STOP_S = 5.0

_LOG = structlog.get_logger(part="peer-api")


def _member(transport: asyncio.BaseTransport) -> Origin | None:
    """After the handshake, in which it proved the key of a certificate of the roster, if it showed one."""
    der = listener.certificate_of(transport)
    return Origin(listener.MEMBER, fingerprint_of(der)) if der is not None else None


async def _none() -> int:
    return 0


class PeerServer:
    """One listener. It can be started again, on another address, after it was stopped."""

    def __init__(
        self,
        identity: Identity,
        store: MeshStore,
        secrets: Callable[[], Secrets],
        holder: Holder,
        *,
        on_joined: Callable[[Member], None] = lambda _: None,
        on_heartbeat: Callable[[str, Heartbeat], None] = lambda _, __: None,
        count_entries: Callable[[], Awaitable[int]] = _none,
        approval: Approval | None = None,
        nonces: Nonces | None = None,
        ask_nonces: Nonces | None = None,
        limits: Mapping[str, Limit] = listener.LIMITS,
        handshake_s: float = _HANDSHAKE_S,
        head_s: float = HEAD_S,
        grace_s: float = _GRACE_S,
        scrape: Scrape | None = None,
    ) -> None:
        """secrets: called when a node is admitted. on_joined(member), on_beat(fingerprint, beat): called in the loop.

        approval: the requests to join without an invite, which people answer; default: one of its own.
        limits: of the connections at one time. handshake_s, head_s: seconds for the handshake, and for a request's head.
        grace_s: seconds that a silent connection keeps its place when others want one.
        """
        self._identity = identity
        self._store = store
        welcome = Welcome(store, secrets, count_entries)
        self.approval = approval or Approval(store, secrets, on_joined=on_joined)
        routes = table(
            Strangers(store, welcome, nonces or Nonces(), on_joined),
            Asking(self.approval, welcome, ask_nonces or Nonces()),
            Members(store, holder, on_heartbeat),
        )
        self._routes = {(route.method, route.path): route for route in routes}
        self._scrape = scrape
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

    def answer_scrapes(self, token_file: Path | None, render: Callable[[], Awaitable[bytes]]) -> None:
        """Answer GET /metrics with what `render` gives, to the bearer of that token; None: to nobody."""
        self._scrape = Scrape(token_file, render)

    async def start(self, address: str, port: int) -> None:
        """Listen there. port 0: any; `listening` says which. Raises MeshError BUSY, NO_OVERLAY, BAD_CONFIG."""
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
        self._connections = connections = listener.Connections(self._dispatch)
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
        """Stop listening; requests under way get a few seconds. Does nothing where it does not listen."""
        accepts, connections = self._listener, self._connections
        self._listener = self._connections = self._context = self.listening = None
        if accepts is not None:
            await accepts.stop()
        if connections is not None:
            connections.pre_shutdown()
            await connections.shutdown(_STOP_S)

    def _origin(self, connection: socket.socket) -> Origin:
        """Before the handshake: strangers that leave theirs open do not take the places of members."""
        address = str(connection.getpeername()[0])
        return Origin(listener.NEIGHBOUR if address in self._neighbours else listener.STRANGER, address)

    def _trust_members(self) -> None:
        # The forgotten stay trust anchors: so they are told, by a request, rather than by a handshake that breaks.
        if self._context is None:
            return
        new = [member for member in self._store.roster().members if member.fingerprint not in self._trusted]
        tls.trust(self._context, [member.certificate for member in new])
        self._trusted.update(member.fingerprint for member in new)
        self._neighbours = frozenset(member.address for member in self._store.members())

    # -- from HTTP to a handler and back ---------------------------------------------------------------------------

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one seam: whatever happens, the caller gets an answer or a problem document."""
        try:
            async with asyncio.timeout(_CALL_S):
                if self._scrape is not None and self._scrape.takes(request):
                    return await self._scrape.answer(request)
                return await self._answer(request)
        except MeshError as exc:
            return listener.problem(exc)
        except TimeoutError:
            _LOG.warning("a peer was not answered in time", method=request.method, path=request.path)
            return listener.problem(
                MeshError(
                    Code.NOT_READY, "cannot answer in time", "this node is overloaded", "try again later"
                )
            )
        except Exception:  # noqa: BLE001 -- no stack trace reaches a peer; it is logged
            _LOG.exception("a peer was not answered", method=request.method, path=request.path)
            return listener.problem(
                MeshError(
                    Code.INTERNAL,
                    "cannot answer",
                    "something broke on that node",
                    "see the journal of meshd on that node: journalctl -u meshd",
                )
            )

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        route = self._routes.get((request.method, request.path))
        caller = self._caller(request, route.access if route is not None else "member")
        if route is None:
            raise MeshError(
                Code.NOT_FOUND, "cannot find that", f"there is no {request.method} {request.path[:100]} here"
            )
        call = Call(
            caller, listener.address_of(request.transport), request.query, await listener.body_of(request)
        )
        answer = await route.handler(call)
        return web.Response(
            body=answer.model_dump_json().encode(),
            content_type="application/json",
            headers={"Server": "meshd"},
        )

    def _caller(self, request: web.BaseRequest, access: Access) -> Member | None:
        """The live member that calls. Asked at each request, as a connection may be older than its end."""
        der = listener.certificate_of(request.transport)
        member = self._store.by_fingerprint(fingerprint_of(der)) if der is not None else None
        if member is not None and member.forgotten:
            raise MeshError(
                Code.FORGOTTEN,
                "cannot answer this node",
                f"{self._store.name_of(member.forgotten_by)} had the mesh forget it",
                "type meshctl leave there; then join again with an invite of a member",
                by=member.forgotten_by,
            )
        if member is None and access == "member":
            raise MeshError(
                Code.DENIED,
                "cannot answer a stranger",
                "only members of the mesh may ask this",
                "join it first: meshctl join",
            )
        return member
