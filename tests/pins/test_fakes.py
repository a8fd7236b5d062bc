"""The fake engines of this folder answer as the real ones do, called in this process and served on a socket alike.

All three are asked the same: what `KuboApi` and `ClusterApi` have, which is all that the rooms ask that keep and delete.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from meshd.cluster.rest import Cluster, RoomUnknownError
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import EMPTY_BLOCK, Kubo, KuboError
from meshd.model import Pin
from meshd.pins import entries
from meshd.pins.engine_api import ClusterApi, KuboApi
from tests.engines.machine import Machine, short_folder
from tests.pins.fake_engines import FakeCluster, FakeKubo
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOME_FILE = "bafkreigfd6fqaj4y3zzjufhqexzy3g4y3mtu6ozd3mzcl6l2kgepfwnwqu"
NOWHERE = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


class Engines(NamedTuple):
    kubo: KuboApi
    cluster: ClusterApi
    peer: str  # the cluster's id of this node
    file: str  # a CID that is here: of "some content"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["called", "served", "real"])
async def engines(request: pytest.FixtureRequest) -> AsyncIterator[Engines]:
    with short_folder() as folder:
        if request.param == "real":
            machine = Machine(folder)
            try:
                await machine.start_kubo()
                await machine.start_cluster()
                peer, file = (await machine.cluster.id())["id"], await added(machine.kubo)
                yield Engines(machine.kubo, machine.cluster, peer, file)
            finally:
                await machine.stop()
            return
        fakes = FakeKubo(folder / "kubo.sock"), FakeCluster(folder / "cluster.sock")
        fakes[0].blocks[SOME_FILE] = {"some": "content"}
        fakes[0].names[SOME_FILE] = ""
        fakes[1].measured = {"clusterattic"}
        if request.param == "called":
            yield Engines(*fakes, "clusterattic", SOME_FILE)
            return
        clients = Kubo(fakes[0].socket), Cluster(fakes[1].socket)
        for server in fakes:
            await server.start()
        yield Engines(*clients, "clusterattic", SOME_FILE)
        for client in clients:
            await client.close()
        for server in fakes:
            await server.stop()


async def added(kubo: Kubo) -> str:
    """A file in the real kubo; its CID."""
    form = aiohttp.FormData()
    form.add_field("file", b"some content", filename="file")
    async with kubo.call("add", data=form, cid_version="1") as answer:
        return str(json.loads(await answer.read())["Hash"])


async def an_entry(engines: Engines, name: str, root: str = "") -> Pin:
    """Here, and neither pinned nor in the pinset. root: what it links to, by default nothing."""
    size, time = 2**53 + 1, 1700000000.125
    draft = Pin("", name, "f1" * 32, root or NOWHERE, size, time, 2, True, (engines.peer,), files=3)
    node = entries.to_node(draft)
    if not root:
        node["root"] = "none"  # a link would be followed to nowhere
    return dataclasses.replace(draft, cid=await engines.kubo.put_entry(node))


async def test_an_entry_is_read_back_and_has_the_usual_spelling(engines: Engines) -> None:
    node = {"name": "minutes ä", "size": 2**53 + 1, "nonce": secrets.token_hex(16)}
    cid = await engines.kubo.put_entry(node)
    assert entries.is_cid(cid)
    assert await engines.kubo.get_node(cid, offline=True) == node
    assert await engines.kubo.has(cid)


async def test_what_is_not_here_is_not_found(engines: Engines) -> None:
    assert not await engines.kubo.has(NOWHERE)
    with pytest.raises(KuboError) as caught:
        await engines.kubo.get_node(NOWHERE, offline=True)
    assert "not found" in caught.value.message


async def test_a_pin_is_made_listed_with_its_name_and_taken_away(engines: Engines) -> None:
    pin, other = await an_entry(engines, "a"), await an_entry(engines, "b")
    await engines.kubo.pin(pin.cid, "name ä")
    assert await engines.kubo.pinned([pin.cid]) == {pin.cid}
    assert await engines.kubo.pinned([pin.cid, other.cid]) == {pin.cid}
    assert {p.cid: p.name for p in await engines.kubo.pins()}[pin.cid] == "name ä"
    await engines.kubo.pin(other.cid)
    parts = [part async for part in engines.kubo.pins_in_parts(1)]
    assert {len(part) for part in parts} == {1}
    assert [p for part in parts for p in part] == await engines.kubo.pins()
    assert await engines.kubo.unpin(pin.cid)
    assert not await engines.kubo.unpin(pin.cid), "there is none any more"
    assert await engines.kubo.pinned([pin.cid]) == set()
    assert await engines.kubo.has(pin.cid), "until garbage is collected"


async def test_what_nobody_has_is_neither_pinned_nor_read_nor_looked_at(engines: Engines) -> None:
    for call in (
        engines.kubo.pin(NOWHERE, timeout=1.0),
        engines.kubo.get_node(NOWHERE, seconds=1.0),
        engines.kubo.stat(f"/ipfs/{NOWHERE}", timeout=1.0),
    ):
        with pytest.raises(KuboError):
            await call
    assert await engines.kubo.pinned([NOWHERE]) == set()


async def test_what_a_cid_is_can_be_asked(engines: Engines) -> None:
    found = await engines.kubo.stat(f"/ipfs/{engines.file}")
    assert (found.cid, found.directory, found.cumulative >= found.size > 0) == (engines.file, False, True)


async def test_a_pin_of_what_is_pinned_changes_its_name_and_makes_no_second_one(engines: Engines) -> None:
    pin = await an_entry(engines, "twice")
    for name in ("first", "second"):
        await engines.kubo.pin(pin.cid, name)
    assert [p.name for p in await engines.kubo.pins() if p.cid == pin.cid] == ["second"]
    assert await engines.kubo.unpin(pin.cid)
    assert await engines.kubo.pinned([pin.cid]) == set()


async def test_what_a_pinned_entry_links_to_has_no_pin_of_its_own(engines: Engines) -> None:
    """Else whoever unpins the content would seem to have let go of it, and an entry would seem to be held that is not."""
    content = await an_entry(engines, "linked content")
    pin = await an_entry(engines, "linking entry", root=content.cid)
    await engines.kubo.pin(pin.cid)
    assert await engines.kubo.pinned([content.cid, pin.cid]) == {pin.cid}
    assert not await engines.kubo.unpin(content.cid)
    assert await engines.kubo.pinned([]) == set()


async def test_the_block_of_no_bytes_keeps_its_pin(engines: Engines) -> None:
    assert await engines.kubo.unpin(EMPTY_BLOCK), "whatever is asked"


async def test_garbage_is_what_no_pin_reaches(engines: Engines) -> None:
    kept, gone = await an_entry(engines, "kept"), await an_entry(engines, "gone")
    await engines.kubo.pin(kept.cid)
    assert await engines.kubo.collect_garbage() >= 1
    assert (await engines.kubo.has(kept.cid), await engines.kubo.has(gone.cid)) == (True, False)


async def test_what_a_pinned_entry_links_to_is_no_garbage(engines: Engines) -> None:
    content, loose = await an_entry(engines, "content"), await an_entry(engines, "loose")
    pin = await an_entry(engines, "entry", root=content.cid)
    await engines.kubo.pin(pin.cid)
    await engines.kubo.collect_garbage()
    assert [await engines.kubo.has(p.cid) for p in (pin, content, loose)] == [True, True, False]


async def test_what_it_is_set_to_and_whom_it_is_connected_to_can_be_asked(engines: Engines) -> None:
    assert isinstance(engines.kubo, Kubo | FakeKubo)
    assert (await engines.kubo.config())["Addresses"]["Gateway"] == []
    assert await engines.kubo.swarm_peers() == {}


async def committed(engines: Engines, pin: Pin) -> None:
    async def taken() -> bool:  # a real one refuses for some seconds, until it knows its own room
        try:
            await engines.cluster.pin(pin)
        except RoomUnknownError:
            return False
        return True

    async def there() -> bool:
        return await engines.cluster.allocation(pin.cid) is not None

    await until(taken, 20)
    await until(there)


async def test_the_cluster_says_which_version_it_is(engines: Engines) -> None:
    assert (await engines.cluster.version()).startswith("1.")


async def test_a_record_is_read_back_whole_replaced_and_taken_out(engines: Engines) -> None:
    pin = await an_entry(engines, "50% & more? +ü")
    await committed(engines, pin)
    assert await engines.cluster.with_room() == {engines.peer}
    assert await engines.cluster.allocation(pin.cid) == pin
    assert [p for p in await engines.cluster.allocations() if p.cid == pin.cid] == [pin]
    for_all = dataclasses.replace(pin, wanted="all", allocations=())
    await engines.cluster.pin(for_all)

    async def replaced() -> bool:
        return await engines.cluster.allocation(pin.cid) == for_all

    async def out() -> bool:
        return await engines.cluster.allocation(pin.cid) is None

    await until(replaced)
    assert await engines.cluster.unpin(pin.cid)
    await until(out)
    assert not await engines.cluster.unpin(pin.cid)


async def test_a_node_of_which_no_room_is_known_is_not_allocated_to(engines: Engines) -> None:
    elsewhere = "12D3KooWGRUcbkqPbVXu1KfRjP4yoKMt4aP4Z8cZcPYFMvPkBJV4"
    pin = dataclasses.replace(await an_entry(engines, "far"), allocations=(engines.peer, elsewhere))
    with pytest.raises(MeshError) as caught:
        await engines.cluster.pin(pin)
    assert isinstance(caught.value, RoomUnknownError)
    assert await engines.cluster.allocation(pin.cid) is None


async def test_what_is_not_in_the_pinset_is_none(engines: Engines) -> None:
    assert await engines.cluster.allocation(NOWHERE) is None


async def test_a_path_is_no_record(engines: Engines) -> None:
    with pytest.raises(MeshError) as caught:
        await engines.cluster.allocation("a/b")
    assert caught.value.code is Code.BAD_REQUEST


async def test_what_is_no_command_is_not_found(engines: Engines) -> None:
    for client, method, path in (
        (engines.kubo, "POST", "api/v0/no/such"),
        (engines.cluster, "GET", "no/such"),
    ):
        if not isinstance(client, Kubo | Cluster):
            continue  # it has no such method, by its type
        connector = aiohttp.UnixConnector(str(client.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.request(method, f"http://engine/{path}") as answer,
        ):
            assert answer.status == 404
