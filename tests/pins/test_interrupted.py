"""What became of a pin or a restore that was interrupted, as the list, the trash and the other nodes say afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd import wire
from meshd.component import StopPhase
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.operations.aftermath import Aftermath
from meshd.operations.registry import Operation, Operations
from meshd.operations.store import Record
from meshd.operations.wiring import OperationsRoom
from tests.mesh_room.nodes import Node
from tests.operations.works import Held
from tests.pins.attic import Attic

LONG_AGO = 1_600_000_000.0  # before any entry of these tests


def record(verb: str, pin: Pin, *, known: bool = True, began: float = LONG_AGO) -> Record:
    """known: whether it was recorded which entry is its own."""
    return Record(
        id="0a1b2c3d", verb=verb, subject=pin.name, by="anna", began=began, cid=pin.cid if known else ""
    )


@pytest.fixture
def aftermath(attic: Attic) -> Aftermath:
    return Aftermath(attic.store, attic.pins.catalogue, attic.pins.journal)


async def test_an_entry_that_is_whole(aftermath: Aftermath, attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    outcome = await aftermath.look(record("pin", pin))
    assert outcome.detail == f"it was interrupted; {pin.name} is kept, with all its 2 copies"
    assert outcome.settled


async def test_an_entry_that_lacks_a_copy(aftermath: Aftermath, attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    barn.holder.held.clear()
    outcome = await aftermath.look(record("pin", pin))
    assert "with 1 of 2 copies; the mesh makes the others by itself" in outcome.detail
    assert outcome.settled


async def test_an_entry_whose_other_node_is_away(aftermath: Aftermath, attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    attic.is_away(barn, 1.0)
    outcome = await aftermath.look(record("pin", pin))
    assert "with 1 of 2 copies; barn cannot be asked" in outcome.detail
    assert not outcome.settled


async def test_an_entry_that_did_not_get_into_the_list(
    aftermath: Aftermath, attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    for known in (True, False):
        outcome = await aftermath.look(record("pin", pin, known=known))
        assert outcome.detail == f"it was interrupted; {pin.name} is not kept, and nothing of it stays pinned"


async def test_one_that_got_into_the_list_just_before_is_found_by_its_name(
    aftermath: Aftermath, attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn)
    assert "is kept" in (await aftermath.look(record("pin", pin, known=False))).detail


async def test_what_had_its_name_before_is_not_taken_for_it(
    aftermath: Aftermath, attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn)
    outcome = await aftermath.look(record("pin", pin, known=False, began=pin.time + 5))
    assert "is not kept" in outcome.detail


async def test_what_another_node_has_pinned_by_that_name_is_not_taken_for_it(
    aftermath: Aftermath, attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint)
    assert "is not kept" in (await aftermath.look(record("pin", pin, known=False))).detail


async def test_a_restore_that_did_not_come_to_it(aftermath: Aftermath, attic: Attic, barn: Node) -> None:
    """Also where an entry of the same name is kept: that is another one."""
    pin, namesake = attic.entry(attic.node, barn), attic.entry(attic.node, barn)
    attic.keep(dataclasses.replace(namesake, name=pin.name))
    await attic.pins.journal.record([attic.removal(pin)])
    del attic.fake_cluster.records[pin.cid]
    outcome = await aftermath.look(record("restore", pin, known=False))
    assert outcome.detail == f"it was interrupted; {pin.name} is in the trash still"


@pytest.mark.parametrize("dropped", [True, False], ids=["out of the trash", "in the trash, too"])
async def test_a_restore_that_came_to_the_list(
    aftermath: Aftermath, attic: Attic, barn: Node, dropped: bool
) -> None:
    pin = attic.entry(attic.node, barn)
    if not dropped:
        await attic.pins.journal.record([attic.removal(pin)])
    outcome = await aftermath.look(record("restore", pin, known=False))
    assert outcome.detail == f"it was interrupted; {pin.name} is back, with all its 2 copies"


async def test_a_join_of_a_node_that_was_forgotten_since_is_none(aftermath: Aftermath, attic: Attic) -> None:
    joined = Record(id="0a1b2c3d", verb="join", subject="archive", by="anna", began=LONG_AGO)
    assert "is a member of" in (await aftermath.look(joined)).detail
    await attic.store.forget(attic.node.fingerprint, by=attic.node.fingerprint)
    assert "is in no mesh" in (await aftermath.look(joined)).detail
    left = joined.model_copy(update={"verb": "leave"})
    assert "what it held is here still" in (await aftermath.look(left)).detail


async def test_while_the_list_cannot_be_read_nothing_is_said(
    aftermath: Aftermath, attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn)
    await attic.fake_cluster.stop()
    with pytest.raises(MeshError) as caught:
        await aftermath.look(record("pin", pin))
    assert caught.value.code is not Code.NOT_FOUND


# -- the loop that says it -----------------------------------------------------------------------------------------


@pytest.fixture
async def after(attic: Attic, barn: Node, tmp_path: Path) -> AsyncIterator[tuple[Operations, str, Pin]]:
    """A start after a pin was interrupted, the id of that operation, and its entry."""
    pin = attic.entry(attic.node, barn)
    before = Operations(tmp_path / "operations.db")
    await before.open()
    begun = asyncio.Event()

    async def work(operation: Operation) -> None:
        await operation.emit(wire.EntryEvent(cid=pin.cid, name=pin.name, wanted=2))
        begun.set()
        await asyncio.Event().wait()

    id_ = before.begin("pin", pin.name, "anna", work).id
    await begun.wait()
    await before.stop()
    await before.close()
    operations = Operations(tmp_path / "operations.db")
    await operations.open()
    yield operations, id_, pin
    await operations.close()


def said(operations: Operations, id_: str) -> str:
    error = operations.get(id_).error
    assert error is not None
    return str(error["detail"])


async def test_it_is_said_as_soon_as_it_can_be_seen(
    after: tuple[Operations, str, Pin], attic: Attic, barn: Node
) -> None:
    operations, id_, pin = after
    room = OperationsRoom(operations, attic.store, attic.pins, asyncio.Event())
    attic.fake_cluster.fails = {"GET allocations": "it starts"}
    await room.explain()
    assert "is looked at once this node serves" in said(operations, id_)
    attic.fake_cluster.fails = {}
    attic.is_away(barn, 1.0)
    await room.explain()
    assert "with 1 of 2 copies; barn cannot be asked" in said(operations, id_)
    assert operations.unexplained == [id_]
    attic.state(barn, reachable=True)
    await room.explain()
    assert said(operations, id_) == f"it was interrupted; {pin.name} is kept, with all its 2 copies"
    assert operations.unexplained == []


async def test_it_is_not_looked_at_for_ever_where_a_member_stays_away(
    after: tuple[Operations, str, Pin], attic: Attic, barn: Node
) -> None:
    operations, id_, _ = after
    room = OperationsRoom(operations, attic.store, attic.pins, asyncio.Event(), settle_s=0.0)
    attic.is_away(barn, 1.0)
    await room.explain()
    assert operations.unexplained == [id_]
    await room.explain()
    assert operations.unexplained == []


@pytest.mark.parametrize("left", [False, True])
async def test_a_node_that_ends_takes_all_with_it_but_the_leave_that_ends_it(
    attic: Attic, tmp_path: Path, left: bool
) -> None:
    """A leave that is not that far is ended, so that it takes itself back."""
    operations, has_left = Operations(tmp_path / "operations.db"), asyncio.Event()
    component = OperationsRoom(operations, attic.store, attic.pins, has_left).component()
    for start in component.start:
        await start()
    works = {verb: Held() for verb in ("pin", "leave")}
    for verb, work in works.items():
        operations.begin(verb, "archive", "anna", work)
        await work.begun.wait()
    if left:
        has_left.set()
    [stop] = [stop.work for stop in component.stops if stop.phase is StopPhase.WORK]
    await stop()
    assert {verb for verb, work in works.items() if work.undone} == ({"pin"} if left else {"pin", "leave"})
    await operations.stop()
    await operations.close()


async def test_while_meshd_stops_nothing_is_explained(
    after: tuple[Operations, str, Pin], attic: Attic
) -> None:
    """What it ends at this moment may be undone a moment later."""
    operations, id_, _ = after
    await operations.stop()
    await OperationsRoom(operations, attic.store, attic.pins, asyncio.Event()).explain()
    assert operations.unexplained == [id_]
