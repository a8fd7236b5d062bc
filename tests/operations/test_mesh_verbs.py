"""init, join and leave over the control socket: whoever goes away takes them back, until there is no way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.config import Control
from meshd.control.access import Gatekeeper
from meshd.control.mesh import MeshApi
from meshd.control.server import ControlServer
from meshd.http.route import Route
from meshd.mesh.invites import Invitation, encode
from meshd.operations.api import OperationsApi
from meshd.operations.registry import Operations
from tests.engines.machine import short_folder
from tests.operations.clients import Clients, Stream
from tests.waiting import until

STEP = wire.StepEvent(message="asking 10.0.0.1")
LEFT = wire.LeftEvent(mesh="archive")
TOKEN = "5ec3e7" * 10 + "abcd"
INVITE = encode(
    Invitation(
        mesh_name="archive",
        mesh_id="0" * 32,
        overlay="static",
        addresses=("10.0.0.1:4010",),
        fingerprint="f" * 64,
        invite_id="0a1b2c3d",
        token=TOKEN,
        expires=4e9,
    )
)
ASKED: dict[str, tuple[str, str, object]] = {
    "init": ("POST", "/v1/mesh", {"name": "archive"}),
    "join": ("POST", "/v1/mesh/join", {"invite": INVITE}),
    "join by network": ("POST", "/v1/mesh/join", {"network": "8056C2E21C000001"}),
    "leave": ("DELETE", "/v1/mesh?force=1", None),
}


class Verbs:
    """What joins and leaves: says that it has begun, goes on when it is let, and then there is no way back."""

    def __init__(self) -> None:
        self.go_on, self.end = asyncio.Event(), asyncio.Event()
        self.undone = False

    async def init(self, name: str, network: str, emit: wire.Emit, *, member: Callable[[], None]) -> None:
        await self._take(emit, member)

    async def join(
        self, invite: str, name: str | None, emit: wire.Emit, *, member: Callable[[], None]
    ) -> None:
        assert invite == INVITE
        await self._take(emit, member)

    async def join_network(
        self, network: str, name: str | None, emit: wire.Emit, *, confirm: bool, member: Callable[[], None]
    ) -> None:
        await self._take(emit, member)

    async def leave(self, emit: wire.Emit, *, force: bool, network: bool, stated: Callable[[], None]) -> None:
        await self._take(emit, stated)

    async def _take(self, emit: wire.Emit, no_way_back: Callable[[], None]) -> None:
        try:
            await emit(STEP)
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.undone = True
            raise
        no_way_back()
        await emit(STEP)
        await self.end.wait()
        await emit(LEFT)


class Store:
    mesh = None


@pytest.fixture
def verbs() -> Verbs:
    return Verbs()


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
async def clients(verbs: Verbs, operations: Operations, folder: Path) -> AsyncIterator[Clients]:
    made: dict[str, Any] = {"joining": verbs, "leaving": verbs, "store": Store(), "operations": operations}
    api = MeshApi(status=None, admin=None, seeds=None, **made)  # type: ignore[arg-type]
    routes = [
        Route("POST", "/v1/mesh", "admin", api.init, (), wire.InitRequest),
        Route("DELETE", "/v1/mesh", "admin", api.leave, (), query=("force", "network")),
        Route("POST", "/v1/mesh/join", "admin", api.join, (), wire.JoinRequest),
        *OperationsApi(operations).routes(),
    ]
    server = ControlServer(folder / "s", Gatekeeper(Control(), lambda: ()), routes=routes)
    await server.start()
    async with Clients(folder / "s") as clients:
        yield clients
    await operations.stop()
    await server.stop()


async def begun(clients: Clients, verb: str) -> Stream:
    stream = await clients.ask(*ASKED[verb])
    assert await stream.next() == STEP.model_dump()
    return stream


@pytest.mark.parametrize("verb", ASKED)
async def test_who_goes_away_takes_it_back(
    clients: Clients, verbs: Verbs, operations: Operations, verb: str
) -> None:
    first = await begun(clients, verb)
    await first.hang_up()
    await until(lambda: verbs.undone)
    await until(lambda: operations.get(first.operation).state == "interrupted")


@pytest.mark.parametrize("verb", ASKED)
async def test_who_goes_away_once_there_is_no_way_back_ends_nothing(
    clients: Clients, verbs: Verbs, operations: Operations, verb: str
) -> None:
    first = await begun(clients, verb)
    second = await clients.ask("GET", f"/v1/operations/{first.operation}/events")
    verbs.go_on.set()
    await first.next()
    await first.hang_up()
    await second.next()
    verbs.end.set()
    *_, last = await second.rest()
    assert last == LEFT.model_dump()
    assert not verbs.undone
    assert operations.get(first.operation).state == "done"


async def test_what_is_told_of_a_join_is_its_mesh_and_never_its_invite(
    clients: Clients, operations: Operations, path: Path
) -> None:
    first = await begun(clients, "join")
    assert operations.get(first.operation).subject == "archive"
    by_network = await begun(clients, "join by network")
    assert operations.get(by_network.operation).subject == "8056c2e21c000001"
    written = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert first.operation.encode() in written
    assert INVITE.encode() not in written
    assert TOKEN.encode() not in written


async def test_what_is_no_invite_begins_nothing(clients: Clients, operations: Operations) -> None:
    refused = await clients.ask("POST", "/v1/mesh/join", {"invite": "nonsense"})
    assert (refused.status, (await refused.document())["code"]) == (400, "bad-invite")
    assert operations.list() == []
