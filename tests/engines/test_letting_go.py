"""What makes a node let content go, and what does not: the room `pins` on a real kubo and a real cluster of one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from meshd import config, wire
from meshd.cluster.datastore import Datastore
from meshd.errors import Code, MeshError
from meshd.mesh.identity import Identity
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins.trash import removal_of
from meshd.pins.wiring import Pins, PinsDeps
from meshd.wire import ReleaseRequest, Removals
from tests.engines.entries import committed, entry
from tests.engines.machine import Machine
from tests.mesh_room.nodes import calling
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BARN = "f1" * 32  # the owner of what `entry` makes
LONG_AGO = 1_000_000.0


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.load_or_create(tmp_path_factory.mktemp("identity"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(node: Machine, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> MeshStore:
    """A mesh of this node alone."""
    made = MeshStore(tmp_path_factory.mktemp("mesh"), identity.fingerprint)
    facts = {
        "name": "attic",
        "certificate": identity.certificate,
        "address": node.address,
        "peer_port": 4010,
        "swarm_port": node.kubo_port,
        "cluster_port": node.cluster_port,
        "kubo_id": (await node.kubo.id())["ID"],
        "cluster_id": (await node.cluster.id())["id"],
    }
    await made.create("archive", wire.Joiner.model_validate(facts))
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def pins(node: Machine, store: MeshStore, identity: Identity, tmp_path: Path) -> AsyncIterator[Pins]:
    """Its trash is empty, and what is in it is let go after a second."""
    text = f'[paths]\nstate = "{tmp_path}"\nrun = "{node.private}"\n[storage]\nreserve = "0B"\n[pins]\ntrash = "1s"\n'
    peers = PeerClient(identity, lambda: node.address)
    made = Pins(
        PinsDeps(
            config=config.parse(text, "the test"),
            store=store,
            peers=peers,
            kubo=node.kubo,
            cluster=node.cluster,
            datastore=Datastore(node.state / "cluster"),
            content=(node.state / "kubo",),
            peer_states=lambda: (),
            ready=lambda: True,
        )
    )
    yield made
    await made.stop()
    await peers.close()


async def kept(node: Machine, name: str) -> Pin:
    """An entry of barn's, here and in the pinset."""
    pin = await entry(node, name)
    await node.kubo.pin(pin.cid, pin.name)
    return await committed(node, pin)


async def removed(node: Machine, name: str) -> Pin:
    """An entry of barn's that is here and no longer in the pinset."""
    pin = await entry(node, name)
    await node.kubo.pin(pin.cid, pin.name)
    return pin


# -- what others tell ----------------------------------------------------------------------------------------------


async def test_a_removal_that_names_a_path_is_not_taken_and_holds_up_no_other(
    node: Machine, pins: Pins
) -> None:
    """kubo takes a path where a CID is meant: by one, what is kept could be named as if it were not."""
    ours, gone = await kept(node, "ours"), await removed(node, "gone")
    paths = [f"/ipfs/{ours.cid}", f"{ours.cid}/root", f"{ours.cid}/", f"/ipfs/{ours.cid}/../x", "", "."]
    told = [wire.Removal(cid=path, time=LONG_AGO, by=BARN, owner=BARN, now=True) for path in paths]
    await pins.peer_backend.take_removals(
        calling(BARN), Removals(removals=[*told, removal_of(gone, BARN)], total=0)
    )
    assert [r.cid for r in pins.journal.all()] == [gone.cid]
    await pins.sweeper.sweep()
    assert ours.cid in await node.kubo.pinned([ours.cid])


async def test_what_is_no_cid_is_not_let_go_whoever_asks(node: Machine, pins: Pins) -> None:
    ours = await kept(node, "ours")
    for path in (f"/ipfs/{ours.cid}", f"{ours.cid}/", f"{ours.cid}/root", "", "."):
        with pytest.raises(MeshError) as caught:
            await pins.peer_backend.release(calling(BARN), ReleaseRequest(cid=path))
        assert (caught.value.code, caught.value.title) == (Code.BAD_REQUEST, "cannot let that go")
    assert await node.kubo.pinned([ours.cid]) == {ours.cid}


async def test_what_others_tell_of_the_owner_is_not_believed(node: Machine, pins: Pins) -> None:
    """The entry says who its owner is; a member that calls itself the owner has nothing let go."""
    gone = await removed(node, "gone")
    stranger = "e2" * 32
    told = removal_of(gone, stranger).model_copy(update={"owner": stranger, "now": True})
    await pins.peer_backend.take_removals(calling(stranger), Removals(removals=[told], total=0))
    assert await node.kubo.pinned([gone.cid]) == {gone.cid}
    record = pins.journal.get(gone.cid)
    assert record is not None
    assert record.owner == BARN
    with pytest.raises(MeshError) as caught:
        await pins.peer_backend.release(calling(stranger), ReleaseRequest(cid=gone.cid))
    assert caught.value.code is Code.NOT_OWNER


# -- the sweep -----------------------------------------------------------------------------------------------------


async def test_on_a_disk_that_takes_no_record_what_is_due_goes_all_the_same_one_a_sweep(
    node: Machine, pins: Pins, tmp_path: Path
) -> None:
    """Room comes from letting go, so that must not wait for a record for which there is no room."""
    due = [await removed(node, f"due-{n}") for n in range(2)]
    for pin in due:
        await pins.journal.record([removal_of(pin, BARN)])
    await until(lambda: all(t.age_s > 1 for t in pins.journal.lying()))
    journal = tmp_path / "trash.db"
    journal.unlink()
    journal.mkdir()  # a folder is no database
    with pytest.raises(MeshError, match="cannot record what was removed"):
        await pins.sweeper.sweep()
    assert await node.kubo.pinned([p.cid for p in due]) == {due[1].cid}, "the oldest went"
    collecting = asyncio.create_task(pins.garbage.run())
    await until(lambda: _lacks(node, due[0].cid))  # its room is there again
    collecting.cancel()
    await asyncio.wait([collecting])
    journal.rmdir()
    await pins.sweeper.sweep()
    assert await node.kubo.pinned([p.cid for p in due]) == set()
    assert pins.journal.all() == []


async def _lacks(node: Machine, cid: str) -> bool:
    return not await node.kubo.has(cid)


async def test_what_another_node_put_back_leaves_the_trash_at_the_next_sweep(
    node: Machine, pins: Pins
) -> None:
    back, gone = await kept(node, "back"), await removed(node, "gone")
    await pins.journal.record([removal_of(back, BARN), removal_of(gone, BARN)])
    await pins.sweeper.sweep()
    assert [r.cid for r in pins.journal.all()] == [gone.cid]
    assert await node.kubo.pinned([back.cid]) == {back.cid}


async def test_a_removal_that_a_sweep_meets_half_way_stays_in_the_trash(
    node: Machine, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep has read the pinset; then the removal is recorded, and taken out of the pinset."""
    going, on_its_way = await kept(node, "going"), await kept(node, "on its way")
    read = pins.staging.sweep

    async def meanwhile(*seen: Any) -> None:
        await read(*seen)
        await node.cluster.unpin(going.cid)
        await until(lambda: _is_out(node, going.cid))

    await pins.journal.record([removal_of(going, BARN), removal_of(on_its_way, BARN)])
    pins.remover.under_way.add(on_its_way.cid)
    monkeypatch.setattr(pins.staging, "sweep", meanwhile)
    await pins.sweeper.sweep()
    assert {going.cid, on_its_way.cid} <= {r.cid for r in pins.journal.all()}


async def _is_out(node: Machine, cid: str) -> bool:
    return await node.cluster.allocation(cid) is None


# -- a record that changed meanwhile -------------------------------------------------------------------------------


async def test_a_record_that_is_gone_meanwhile_is_not_made_again(node: Machine, pins: Pins) -> None:
    read = await kept(node, "read")
    await node.cluster.unpin(read.cid)
    await until(lambda: _is_out(node, read.cid))
    with pytest.raises(MeshError) as caught:
        await pins.committer.change(read, read.allocations)
    assert caught.value.code is Code.NOT_FOUND
    assert "meanwhile" in caught.value.detail
    assert await node.cluster.allocation(read.cid) is None


async def test_a_record_that_changed_meanwhile_is_left_as_it_is(node: Machine, pins: Pins) -> None:
    now = await kept(node, "now")
    read = dataclasses.replace(now, allocations=("12D3KooWGRUcbkqPbVXu1KfRjP4yoKMt4aP4Z8cZcPYFMvPkBJV4",))
    with pytest.raises(MeshError) as caught:
        await pins.committer.change(read, now.allocations)
    assert "meanwhile" in caught.value.detail
    assert await node.cluster.allocation(now.cid) == now
