"""Operations over the control socket: one client begins, another finds it and follows, each may go away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.config import Control
from meshd.control.access import Gatekeeper
from meshd.control.server import ControlServer
from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Events, Route
from meshd.operations.api import OperationsApi, answer
from meshd.operations.registry import Operation, Operations
from tests.engines.machine import short_folder
from tests.operations.clients import Clients
from tests.operations.works import ENTRY, Held
from tests.waiting import until

STEP = wire.StepEvent(message="asking 10.0.0.1")
DONE = {"event": "done", "mesh": "archive"}


class Verbs:
    """Routes that begin one operation: `pin` goes on by itself, `join` is tied to its caller. What each does, a test says."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self.work = Held(says=(STEP, ENTRY))

    def routes(self) -> list[Route]:
        events = (wire.StepEvent, wire.EntryEvent, wire.LeftEvent, wire.ErrorEvent)
        return [
            Route("POST", "/v1/pin", "admin", self.pin, events, query=("detach",)),
            Route("POST", "/v1/join", "admin", self.join, events),
        ]

    async def pin(self, request: Request) -> Events:
        async def work(operation: Operation) -> None:
            await operation.committed(wire.LeftEvent(mesh="early"))
            await self.work(operation)

        operation = self._operations.begin("pin", "minutes.pdf", request.principal.label, work)
        return answer(operation, detach=request.query.flag("detach"))

    async def join(self, request: Request) -> Events:
        operation = self._operations.begin("join", "archive", request.principal.label, self.work, tied=True)
        return answer(operation)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
async def verbs(operations: Operations, folder: Path) -> AsyncIterator[Verbs]:
    made = Verbs(operations)
    routes = [*made.routes(), *OperationsApi(operations).routes()]
    server = ControlServer(folder / "s", Gatekeeper(Control(), lambda: ()), routes=routes)
    await server.start()
    yield made
    await operations.stop()
    await server.stop()


@pytest.fixture
async def clients(verbs: Verbs, folder: Path) -> AsyncIterator[Clients]:
    async with Clients(folder / "s") as made:
        yield made


async def test_one_begins_it_and_another_finds_and_follows_it(verbs: Verbs, clients: Clients) -> None:
    first = await clients.ask("POST", "/v1/pin")
    assert [(await first.next())["event"], (await first.next())["event"]] == ["step", "entry"]
    [found] = (await clients.get("/v1/operations"))["operations"]
    assert (found["id"], found["verb"], found["state"]) == (first.operation, "pin", "running")
    assert found["by"].startswith("user id ")
    second = await clients.ask("GET", f"/v1/operations/{found['id']}/events")
    assert second.operation == first.operation
    assert await second.next() == STEP.model_dump()
    verbs.work.go_on.set()
    assert await first.rest() == [DONE]
    assert await second.rest() == [ENTRY.model_dump(), DONE]
    assert (await clients.get(f"/v1/operations/{found['id']}"))["state"] == "done"
    third = await clients.ask("GET", f"/v1/operations/{found['id']}/events")
    assert await third.rest() == [STEP.model_dump(), ENTRY.model_dump(), DONE]


async def test_who_began_it_goes_away_and_it_goes_on(verbs: Verbs, clients: Clients) -> None:
    first = await clients.ask("POST", "/v1/pin")
    second = await clients.ask("GET", f"/v1/operations/{first.operation}/events")
    await first.hang_up()
    assert [(await second.next())["event"], (await second.next())["event"]] == ["step", "entry"]
    verbs.work.go_on.set()
    assert await second.rest() == [DONE]
    assert not verbs.work.undone


async def test_one_that_is_tied_ends_when_who_began_it_goes_away_and_only_then(
    verbs: Verbs, clients: Clients, operations: Operations
) -> None:
    first = await clients.ask("POST", "/v1/join")
    leaves, stays = [await clients.ask("GET", f"/v1/operations/{first.operation}/events") for _ in range(2)]
    await stays.next()
    await leaves.next()
    await leaves.hang_up()
    assert (await first.next())["event"] == "step"
    assert (await clients.get(f"/v1/operations/{first.operation}"))["state"] == "running"
    await first.hang_up()
    await until(lambda: verbs.work.undone)
    *_, last = await stays.rest()
    assert last["problem"]["code"] == "operation-interrupted"
    assert operations.get(first.operation).state == "interrupted"


async def test_what_is_refused_at_once_is_an_ordinary_problem_and_kept_as_failed(
    verbs: Verbs, clients: Clients, operations: Operations
) -> None:
    verbs.work = Held(MeshError(Code.BUSY, "cannot leave now", "others leave", "meshctl peers"))
    verbs.work.go_on.set()
    refused = await clients.ask("POST", "/v1/pin")
    assert refused.status == 409
    problem = await refused.document()
    assert (problem["code"], problem["title"]) == ("busy", "cannot leave now")
    [kept] = operations.list()
    assert (kept.state, kept.error) == ("failed", problem)
    follower = await clients.ask("GET", f"/v1/operations/{kept.id}/events")
    assert follower.status == 200
    assert await follower.rest() == [{"event": "error", "problem": problem}]


async def test_who_does_not_wait_is_answered_at_the_entry_and_it_goes_on(
    verbs: Verbs, clients: Clients
) -> None:
    detached = await clients.ask("POST", "/v1/pin?detach=1")
    *_, last = await detached.rest()
    assert last == {"event": "done", "mesh": "early"}
    assert (await clients.get(f"/v1/operations/{detached.operation}"))["state"] == "running"
    second = await clients.ask("GET", f"/v1/operations/{detached.operation}/events")
    verbs.work.go_on.set()
    assert [event["event"] for event in await second.rest()] == ["step", "entry", "done"]


async def test_an_id_that_there_is_none_of(verbs: Verbs, clients: Clients) -> None:
    for path in ("/v1/operations/nonsense", "/v1/operations/nonsense/events"):
        answered = await clients.ask("GET", path)
        assert answered.status == 404
        assert "meshctl operations" in (await answered.document())["hint"]


async def test_a_stop_of_meshd_is_the_last_that_each_is_told(
    verbs: Verbs, clients: Clients, operations: Operations
) -> None:
    first = await clients.ask("POST", "/v1/pin")
    second = await clients.ask("GET", f"/v1/operations/{first.operation}/events")
    await verbs.work.begun.wait()
    await operations.stop()
    for each in (first, second):
        *_, last = await each.rest()
        assert last["problem"]["detail"] == "meshd is stopping"
    refused = await clients.ask("POST", "/v1/pin")
    assert refused.status == 503
