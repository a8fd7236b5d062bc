"""What meshd relies on of ipfs-cluster, asked of a real one over the gate and a real kubo."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import aiohttp
import psutil
import pytest

from meshd.cluster.datastore import Datastore, Mark
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from tests.engines.entries import committed, entry
from tests.engines.machine import Machine, Part, noise, short_folder
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


async def becomes(node: Machine, cid: str, status: str) -> None:
    async def is_it() -> bool:
        return await node.cluster.status(cid) == status

    await until(is_it, 20)


# -- who it is -----------------------------------------------------------------------------------------------------


async def test_it_is_the_one_of_this_folder(node: Machine) -> None:
    told = await node.cluster.id()
    assert told["id"] == await node.cluster_program.create()
    assert told["peername"] == "attic"
    assert told["version"] == node.cluster_program.version


async def test_alone_it_sees_itself(node: Machine) -> None:
    assert await node.cluster.peers() == [(await node.cluster.id())["id"]]


async def test_it_talks_to_kubo_through_the_gate(node: Machine) -> None:
    assert (await node.cluster.id())["ipfs"]["id"] == (await node.kubo.id())["ID"]


async def test_its_secret_is_on_no_command_line_and_in_no_environment_and_its_file_is_private(
    node: Machine,
) -> None:
    process = psutil.Process(node.cluster_service.state.pid)
    assert node.secrets.cluster_secret not in " ".join(process.cmdline())
    assert node.secrets.cluster_secret not in json.dumps(process.environ())
    assert (node.state / "cluster" / "service.json").stat().st_mode & 0o777 == 0o600


async def test_a_catalogue_that_is_kept_in_memory_is_refused() -> None:
    """The cluster's default datastore loses the catalogue at kill -9."""
    with short_folder() as folder:
        other = Machine(folder)
        other.place_cluster()
        await other.cluster_program.create()
        path = folder / "s" / "cluster" / "service.json"
        config = json.loads(path.read_text())
        assert set(config["datastore"]) == {"leveldb"}
        path.write_text(json.dumps(config | {"datastore": {"pebble": {}}}))
        with pytest.raises(MeshError) as caught:
            await other.cluster_program.prepare()
    assert caught.value.code is Code.BAD_STATE
    assert "not leveldb" in caught.value.detail


# -- pins ----------------------------------------------------------------------------------------------------------


async def test_an_entry_is_read_back_with_all_that_was_given(node: Machine) -> None:
    pin = await entry(node)
    assert await committed(node, pin) == pin


async def test_an_entry_for_all_has_no_allocations(node: Machine) -> None:
    pin = dataclasses.replace(await entry(node), wanted="all", allocations=())
    assert await committed(node, pin) == pin


async def test_pinning_again_replaces_the_record(node: Machine) -> None:
    pin = await entry(node)
    await committed(node, pin)
    changed = dataclasses.replace(pin, wanted="all", allocations=(), size=5)
    await node.cluster.pin(changed)

    async def replaced() -> bool:
        return await node.cluster.allocation(pin.cid) == changed

    await until(replaced)


async def test_an_unknown_cid_is_none(node: Machine) -> None:
    assert await node.cluster.allocation(UNKNOWN) is None
    assert await node.cluster.status(UNKNOWN) == "unpinned"
    assert not await node.cluster.unpin(UNKNOWN)


async def test_what_is_taken_out_is_gone_from_the_pinset_and_not_from_kubo(node: Machine) -> None:
    pin = await entry(node)
    await committed(node, pin)
    await becomes(node, pin.cid, "pinned")
    assert await node.cluster.unpin(pin.cid)

    async def gone() -> bool:
        return await node.cluster.allocation(pin.cid) is None

    await until(gone)
    await until(lambda: pin.cid in node.rules.removed)
    assert await node.kubo.pinned([pin.cid]) == {pin.cid}
    await becomes(node, pin.cid, "unpinned")


async def test_its_datastore_tells_each_write_and_no_reading(node: Machine) -> None:
    """So while nothing is written the list need not be read anew."""
    datastore = Datastore(node.state / "cluster")
    pin = await entry(node)
    marks = [datastore.mark()]
    await committed(node, pin)
    marks.append(datastore.mark())
    await node.cluster.pin(dataclasses.replace(pin, wanted="all", allocations=()))
    await until(lambda: datastore.mark() != marks[-1])
    marks.append(datastore.mark())
    await node.cluster.unpin(pin.cid)

    async def gone() -> bool:
        return await node.cluster.allocation(pin.cid) is None

    await until(gone)
    await until(lambda: datastore.mark() != marks[-1])
    assert None not in marks
    assert len(set(marks)) == 3
    last = await settled(datastore)
    await node.cluster.allocations()
    await node.cluster.version()
    await node.cluster.status(pin.cid)
    assert datastore.mark() == last


async def settled(datastore: Datastore) -> Mark | None:
    """Its mark once the writes that belong to the last change are done: the same in twenty looks."""
    seen: list[Mark | None] = []

    def same() -> bool:
        seen.append(datastore.mark())
        return len(seen) >= 20 and len(set(seen[-20:])) == 1

    await until(same)
    return seen[-1]


async def test_all_entries_are_listed(node: Machine) -> None:
    pins = [await entry(node, f"name {i}") for i in range(3)]
    for pin in pins:
        await committed(node, pin)
    listed = {pin.cid: pin for pin in await node.cluster.allocations()}
    assert [listed[pin.cid] for pin in pins] == pins


async def test_what_another_program_pinned_is_listed_by_its_cid(node: Machine) -> None:
    cid = (await node.add(Part("file", noise(50)))).root
    there = aiohttp.UnixConnector(str(node.cluster.socket))
    async with aiohttp.ClientSession(connector=there) as other, other.post(f"http://x/pins/{cid}") as answer:
        assert answer.status == 200

    async def listed() -> bool:
        return await node.cluster.allocation(cid) is not None

    await until(listed)
    pin = await node.cluster.allocation(cid)
    assert pin is not None
    assert (pin.name, pin.root, pin.owner, pin.size, pin.wanted) == (cid, cid, "", 0, "all")


async def test_a_name_with_odd_signs_comes_back_as_it_is(node: Machine) -> None:
    name = "50% & more? #1 +ü=🎻"
    assert (await committed(node, await entry(node, name))).name == name


async def test_what_is_pinned_is_durable_when_the_cluster_says_so(node: Machine) -> None:
    pin = await entry(node)
    await committed(node, pin)
    await becomes(node, pin.cid, "pinned")
    assert pin.cid in node.gate.durable or await node.gate.held([pin.cid]) == {pin.cid}


# -- recover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("only_that", [True, False])
async def test_what_was_refused_is_an_error_until_it_is_tried_again(only_that: bool, node: Machine) -> None:
    pin = await entry(node)
    await node.kubo.unpin(pin.cid)
    node.rules.refusals[pin.cid] = "there is no room"
    await committed(node, pin)
    await becomes(node, pin.cid, "pin_error")
    assert pin.cid in await node.cluster.errors()
    del node.rules.refusals[pin.cid]
    await node.cluster.recover(pin.cid if only_that else None)
    await becomes(node, pin.cid, "pinned")
    assert pin.cid not in await node.cluster.errors()


# -- trouble -------------------------------------------------------------------------------------------------------


async def test_what_is_no_cid_is_an_error_in_the_cluster_s_own_words(node: Machine) -> None:
    with pytest.raises(MeshError) as caught:
        await node.cluster.allocation("nonsense")
    assert caught.value.code is Code.ENGINE_FAILED
    assert "cluster says" in caught.value.detail


async def test_a_cluster_that_is_gone_is_not_ready_rather_than_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshd.cluster.rest.PATIENCE_S", 0.1)
    with short_folder() as folder:
        gone = Cluster(folder / "cluster.sock")
        with pytest.raises(MeshError) as caught:
            await gone.id()
        await gone.close()
    assert caught.value.code is Code.NOT_READY
    assert caught.value.hint == "meshctl status"


async def test_a_request_waits_for_a_cluster_that_restarts() -> None:
    """Whenever the roster changes the cluster is started anew; nobody's request fails for it."""
    with short_folder() as folder:
        node = Machine(folder)
        try:
            await node.start_kubo()
            await node.start_cluster()
            pin = await entry(node)
            await committed(node, pin)
            await node.cluster_service.stop("its settings have changed", grace=10)
            waiting = asyncio.create_task(node.cluster.allocations())
            await node.cluster_service.start("s2")
            assert await waiting == [pin]
        finally:
            await node.stop()
