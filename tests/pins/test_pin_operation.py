"""A pin over the control socket: it needs its caller until all that it brings is here, and not any more after that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshd.config import Control
from meshd.control.access import Gatekeeper
from meshd.control.pins import PinsApi
from meshd.control.server import ControlServer
from meshd.http.route import Route
from meshd.operations.api import OperationsApi
from meshd.operations.registry import Operations
from meshd.wire import PinRequest
from tests.engines.machine import short_folder
from tests.mesh_room.nodes import Node
from tests.operations.clients import Clients
from tests.pins.attic import Attic
from tests.pins.fake_engines import cid_of
from tests.waiting import until

PIN = {"name": "minutes", "replicas": 2}


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
async def operations(attic: Attic, tmp_path: Path) -> AsyncIterator[Operations]:
    made = Operations(tmp_path / "operations.db")
    await made.open()
    yield made
    await made.stop()
    await made.close()


@pytest.fixture
async def clients(attic: Attic, operations: Operations, folder: Path) -> AsyncIterator[Clients]:
    pins = attic.pins
    api = PinsApi(pins.catalogue, pins.pinner, pins.content, pins.remover, operations)
    put = Route("PUT", "/v1/pins/{cid}", "admin", api.put, (), PinRequest)
    routes = [put, *OperationsApi(operations).routes()]
    server = ControlServer(folder / "s", Gatekeeper(Control(), lambda: ()), routes=routes)
    await server.start()
    async with Clients(folder / "s") as made:
        yield made
    await operations.stop()
    await server.stop()


def content(attic: Attic) -> str:
    """What another node has."""
    cid = cid_of(b"the content")
    attic.fake_kubo.elsewhere[cid] = None
    return cid


async def test_a_pin_whose_caller_goes_away_before_it_is_in_the_list_is_kept(
    attic: Attic, clients: Clients, operations: Operations
) -> None:
    pinned = attic.fake_kubo.hold("pin/add")
    first = await clients.ask("PUT", f"/v1/pins/{content(attic)}", PIN)
    await attic.fake_kubo.began["pin/add"].wait()
    second = await clients.ask("GET", f"/v1/operations/{first.operation}/events")
    await first.hang_up()
    await clients.get("/v1/operations")  # whatever the end of that connection brings about has come about
    pinned.set()
    *_, last = await second.rest()
    assert (last["event"], last["entry"]["name"], last["degraded"]) == ("done", "minutes", False)
    assert len(attic.fake_cluster.records) == 1
    assert operations.get(first.operation).state == "done"


async def test_who_does_not_wait_has_one_copy_and_the_operation_makes_the_others(
    attic: Attic, clients: Clients, barn: Node, cellar: Node
) -> None:
    attic.fetch = False  # nobody has it before the test says so
    cid = content(attic)
    detached = await clients.ask("PUT", f"/v1/pins/{cid}", PIN | {"detach": True})
    *_, entry, done = await detached.rest()
    assert (entry["event"], done["event"]) == ("entry", "done")
    assert [copy["node"] for copy in done["entry"]["copies"]] == ["attic"]
    second = await clients.ask("GET", f"/v1/operations/{detached.operation}/events")
    for node in (barn, cellar):
        node.holder.held.add(entry["cid"])
    *_, last = await second.rest()
    assert last["entry"]["held"] == 2


async def test_a_stop_before_it_is_in_the_list_leaves_it_to_the_sweep(
    attic: Attic, clients: Clients, operations: Operations
) -> None:
    """Nobody undoes what may be committed at this moment: after the next start it is looked at."""
    attic.fake_cluster.hold("POST pins/one")
    first = await clients.ask("PUT", f"/v1/pins/{content(attic)}", PIN)
    await attic.fake_cluster.began["POST pins/one"].wait()
    [cid] = attic.fake_kubo.names
    await operations.stop()
    *_, last = await first.rest()
    assert last["problem"]["detail"] == "meshd is stopping"
    assert list(attic.fake_kubo.names) == [cid]
    assert cid in attic.pins.staging
    await until(lambda: attic.pins.uploads.count == 0)
