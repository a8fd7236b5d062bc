"""Real nodes of a mesh inside one test: real keys, files, and TLS on loopback addresses. Only the content is fake."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Answer, Handler, Route
from meshd.http.verbs import answered
from meshd.mesh import tls
from meshd.mesh.address_book import AddressBook
from meshd.mesh.approval import Approval
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.identity import Identity
from meshd.mesh.join_by_invite import join
from meshd.mesh.member_calls import MemberCalls
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL
from meshd.mesh.secrets import Secrets
from meshd.mesh.seeds import Resolve, Seeds
from meshd.mesh.store import MeshStore
from meshd.peer.asking import Asking
from meshd.peer.nonces import Nonces
from meshd.peer.routes import table
from meshd.peer.server import PeerServer
from meshd.peer.strangers import Strangers
from meshd.peer.welcome import Welcome
from meshd.principal import Principal
from meshd.wire import (
    Confirmed,
    ConfirmRequest,
    Heartbeat,
    Joiner,
    Member,
    Nothing,
    Released,
    ReleaseRequest,
    Removal,
    Removals,
    RemovalsAfter,
    verbs,
)


class Clock:
    """A clock that a test sets."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def calling(fingerprint: str) -> Principal:
    """The member of that fingerprint, as a handler knows it."""
    return Principal(label="a member", how="member", fingerprint=fingerprint)


class FakeHolder:
    """Content as a node would have it: what is held, what was removed, and by whom it was asked."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.held: set[str] = set()
        self.recorded: list[Removal] = []
        self.told: list[tuple[str, str]] = []
        self.owners: dict[str, str] = {}
        self.breaks: Exception | None = None

    async def beat(self) -> Heartbeat:
        return Heartbeat(
            protocol=PROTOCOL,
            fingerprint=self._node.fingerprint,
            version="0.1.0",
            roster_digest=self._node.store.digest(),
            removals=len(self.recorded),
            free=1000,
            accepts=True,
            ready=True,
        )

    async def confirm(self, cids: list[str]) -> Confirmed:
        if self.breaks is not None:
            raise self.breaks
        return Confirmed(states={cid: "held" if cid in self.held else "missing" for cid in cids})

    def removals(self, after: int) -> Removals:
        return Removals(removals=self.recorded[after:], total=len(self.recorded))

    async def take_removals(self, removals: list[Removal], from_: str) -> None:
        self.told += [(removal.cid, from_) for removal in removals]

    async def release(self, cid: str, caller: str) -> Released:
        if self.owners.get(cid) != caller:
            raise MeshError(Code.NOT_OWNER, "cannot release it", "another node brought it")
        return Released(released=True)

    def routes(self) -> list[Route]:
        """Each by what the test has put in its place by then."""

        async def confirm(_: Principal, asked: ConfirmRequest) -> Confirmed:
            return await self.confirm(asked.cids)

        async def removals(_: Principal, asked: RemovalsAfter) -> Removals:
            return self.removals(asked.after)

        async def take_removals(caller: Principal, told: Removals) -> Nothing:
            await self.take_removals(told.removals, caller.member())
            return Nothing()

        async def release(caller: Principal, asked: ReleaseRequest) -> Released:
            return await self.release(asked.cid, caller.member())

        return [
            answered(verbs.CONFIRM, confirm),
            answered(verbs.REMOVALS, removals),
            answered(verbs.TELL_REMOVALS, take_removals),
            answered(verbs.RELEASE, release),
        ]


class Node:
    """One machine. `start` it, then `found` a mesh or `join` one."""

    def __init__(self, folder: Path, name: str, address: str, now: Callable[[], float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.address: str | None = address
        self.listen = address
        self.now = now
        self.identity = Identity.load_or_create(folder)
        self.fingerprint = self.identity.fingerprint
        self.store = MeshStore(folder, self.fingerprint, now=now)
        self.holder = FakeHolder(self)
        self.address_book = AddressBook(folder / "addresses.json")
        self.peers = PeerClient(self.identity, lambda: self.address, self.address_book)
        self.joined: list[Member] = []
        self.removals_seen: list[tuple[str, int]] = []
        self.heartbeats = Heartbeats(self.store, self.peers, interval=0.2, now=now)
        self.heartbeats.subscribe_beats(self._say)
        self.heartbeats.subscribe_removals(self._on_removals)
        self._watching: asyncio.Task[None] | None = None
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.approval: Approval
        self.server = self.make_server()

    def make_server(
        self,
        *,
        approval: Approval | None = None,
        ask_nonces: Nonces | None = None,
        more: Iterable[Route] = (),
        **options: Any,
    ) -> PeerServer:
        """A listener with all that a node answers, each by what `handlers` has for it then. options: see PeerServer."""

        def secrets() -> Secrets:
            return Secrets.load(self.folder)

        self.approval = approval or Approval(self.store, secrets, on_joined=self.joined.append)
        welcome = Welcome(self.store, secrets, self._count)
        routes = [
            *table(
                Strangers(self.store, welcome, Nonces(), self.joined.append),
                Asking(self.approval, welcome, ask_nonces or Nonces()),
            ),
            *MemberCalls(self.store, self.heartbeats).routes(),
            *self.holder.routes(),
            *more,
        ]
        self.handlers = {(route.method, route.path): route.handler for route in routes}
        self.server = PeerServer(self.identity, self.store, **options)
        self.server.serve(dataclasses.replace(r, handler=self._handler(r.method, r.path)) for r in routes)
        return self.server

    def _handler(self, *name: str) -> Handler:
        method, path = name

        async def handler(request: Request) -> Answer:
            return await self.handlers[method, path](request)

        return handler

    async def _count(self) -> int:
        return 0

    def make_seeds(self, *seeds: str, resolve: Resolve | None = None) -> Seeds:
        return Seeds(
            seeds=seeds,
            port=4010,
            store=self.store,
            peers=self.peers,
            address_book=self.address_book,
            heartbeats=self.heartbeats,
            local_address=lambda: self.address,
            resolve=resolve,
        )

    async def move(self, address: str, port: int = 0) -> None:
        """Get another address, as a machine that was stopped, and state it to the members that are reachable."""
        await self.server.stop()
        self.listen = self.address = address
        await self.server.start(address, port)
        await self.store.update_self(self.joiner())

    async def _say(self) -> None:
        self.heartbeats.own = await self.holder.beat()

    async def _on_removals(self, member: Member, count: int) -> None:
        self.removals_seen.append((member.name, count))

    @property
    def port(self) -> int:
        assert self.server.listening is not None
        return self.server.listening[1]

    def joiner(self, **other: object) -> Joiner:
        facts: dict[str, object] = {
            "name": self.name,
            "certificate": self.identity.certificate,
            "address": self.listen,
            "peer_port": self.port,
            "swarm_port": 4001,
            "cluster_port": 9096,
            "kubo_id": f"kubo{self.name}",
            "cluster_id": f"cluster{self.name}",
        }
        return Joiner.model_validate(facts | other)

    async def start(self) -> Node:
        await self.server.start(self.listen, 0)
        return self

    async def found(self, mesh: str = "archive") -> None:
        Secrets.generate().save(self.folder)
        await self.store.create(mesh, self.joiner())

    async def invite(self, expires_s: float = 3600.0) -> str:
        line = (await self.store.issue_invite(expires_s)).invite
        assert line is not None
        return line

    async def join(self, line: str, **other: object) -> None:
        admitted = await join(line, self.joiner(**other), self.identity, self.peers, now=self.now)
        Secrets(admitted.swarm_key, admitted.cluster_secret).save(self.folder)
        await self.store.adopt(admitted)

    def view_of(self, other: Node) -> Member:
        member = self.store.by_fingerprint(other.fingerprint)
        assert member is not None
        return member

    def begin_watch(self) -> None:
        self._watching = asyncio.create_task(self.heartbeats.run())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self.server.stop()
        await self.peers.close()


async def raw(
    node: Node, method: str, path: str, body: object = None, context: ssl.SSLContext | None = None
) -> tuple[int, dict[str, object], Mapping[str, str]]:
    """Send a raw request: status, document, headers. context: by default without a certificate."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            f"https://{node.listen}:{node.port}{path}",
            json=body,
            ssl=context or tls.stranger_context(),
        ) as response,
    ):
        return response.status, json.loads(await response.read()), response.headers


async def refusal_of(coroutine: Awaitable[object]) -> MeshError:
    """The MeshError that this raises, checked to be one for a person."""
    with pytest.raises(MeshError) as caught:
        await coroutine
    assert caught.value.title.startswith("cannot ")
    return caught.value
