"""What a sweep lets go, and what not: the copies that moved elsewhere, and the trash."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins import sweep
from meshd.pins.storage import Room, Storage
from meshd.pins.sweep import may_unpin
from meshd.pins.wait import silent
from meshd.wire import Copy, Member
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic
from tests.pins.conftest import MakeAttic
from tests.waiting import until

# -- copies that moved ---------------------------------------------------------------------------------------------


async def test_a_copy_that_moved_goes_once_those_that_shall_hold_it_do(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(barn, cellar)
    cellar.holder.held.clear()
    await attic.pins.sweeper.sweep()
    assert attic.has(pin), "cellar does not hold it yet"
    cellar.holder.held.add(pin.cid)
    await attic.pins.sweeper.sweep()
    assert not attic.has(pin)
    assert attic.fake_cluster.records[pin.cid], "it is in the mesh as before"


async def test_it_stays_until_every_one_of_them_does_though_as_many_as_wanted_do(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    """A node that is being replaced is still among them: the others may hold enough, but it may be the one that goes."""
    pin = attic.entry(barn, cellar, wanted=1)
    cellar.holder.held.clear()
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_it_stays_while_fewer_nodes_than_are_wanted_shall_hold_it(attic: Attic, barn: Node) -> None:
    pin = attic.entry(barn, wanted=2)
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_how_many_are_wanted_the_entry_says_and_not_the_pinset(attic: Attic, barn: Node) -> None:
    """Any member can write the pinset's word on it; the entry's cannot be changed."""
    pin = attic.entry(barn, wanted=2, said=1)
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_it_stays_where_a_node_that_shall_hold_it_does_not_answer(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(barn, cellar)
    await cellar.server.stop()
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


def test_a_copy_goes_only_for_copies_that_stay_each_counted_once() -> None:
    """Two sides that were apart may have admitted the same name; and who leaves takes its copy along."""

    def member(number: int, **more: object) -> Member:
        facts = {"fingerprint": f"f{number}", "name": "twin", "certificate": "", "address": "10.0.0.1"}
        ports = {"peer_port": 1, "swarm_port": 1, "cluster_port": 1}
        ids = {"kubo_id": f"k{number}", "cluster_id": f"c{number}"}
        return Member.model_validate(facts | ports | ids | more)

    pin = Pin("cid", "a.txt", "", "root", 1, 1.0, 2, allocations=("c1", "c2"))
    held, missing = Copy(node="twin", state="held"), Copy(node="twin", state="missing")
    here, one, two = member(0), member(1), member(2)
    assert may_unpin(pin, 2, [here, one, two], [held, held, held])
    assert not may_unpin(pin, 2, [here, one, two], [held, held, missing])
    assert not may_unpin(pin, 2, [here, one, two], [held, missing, held])
    assert not may_unpin(pin, 3, [here, one, two], [held, held, held])
    assert not may_unpin(pin, 2, [here, one, member(2, leaving_since=7.0)], [held, held, held])
    assert not may_unpin(dataclasses.replace(pin, allocations=("c8", "c9")), 2, [here, one], [held, held])


async def test_it_stays_where_its_record_changes_while_the_nodes_are_asked(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(barn, cellar)
    confirm = barn.holder.confirm

    async def meanwhile(cids: list[str]) -> object:
        attic.keep(dataclasses.replace(pin, allocations=("clusterbarn", "clusterattic")))
        return await confirm(cids)

    barn.holder.confirm = meanwhile  # type: ignore[method-assign, assignment]
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_it_stays_where_its_record_goes_while_the_nodes_are_asked(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    """It was removed: then it belongs into the trash, for the whole window."""
    pin = attic.entry(barn, cellar)
    confirm = barn.holder.confirm

    async def meanwhile(cids: list[str]) -> object:
        del attic.fake_cluster.records[pin.cid]
        return await confirm(cids)

    barn.holder.confirm = meanwhile  # type: ignore[method-assign, assignment]
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_what_this_node_shall_hold_stays_whoever_else_does(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    allocated = attic.entry(attic.node, barn, cellar)
    for_all = attic.entry(wanted="all")
    await attic.pins.sweeper.sweep()
    assert attic.has(allocated)
    assert attic.has(for_all)


async def test_what_was_seen_to_have_moved_goes_later_and_stays_where_it_is_allocated_here_again(
    attic: Attic, barn: Node, cellar: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is much, what this node has is looked through once an hour, and what moved is kept in mind."""
    monkeypatch.setattr(sweep, "SMALL", 0)
    monkeypatch.setattr(sweep, "_LOOK_SHARE", 1e-9)
    back, moved = attic.entry(barn, cellar), attic.entry(barn, cellar)
    cellar.holder.held.clear()
    await attic.pins.sweeper.sweep()
    attic.keep(dataclasses.replace(back, allocations=("clusterattic", "clusterbarn")))
    cellar.holder.held.add(moved.cid)
    await attic.pins.sweeper.sweep()
    assert (attic.has(back), attic.has(moved)) == (True, False)


async def test_what_is_being_added_here_stays(attic: Attic, barn: Node, cellar: Node) -> None:
    """Its upload is not acknowledged yet, and counts on this node's copy."""
    pin = attic.entry(barn, cellar)
    attic.pins.pending.begin(pin.cid)
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)
    attic.pins.pending.end(pin.cid)
    await attic.pins.sweeper.sweep()
    assert not attic.has(pin)


async def test_an_empty_pinset_lets_nothing_go(attic: Attic, barn: Node, cellar: Node) -> None:
    pins = [attic.entry(attic.node, barn), attic.entry(barn, cellar), attic.entry(wanted="all")]
    attic.fake_cluster.records.clear()
    await attic.pins.sweeper.sweep()
    assert all(attic.has(pin) for pin in pins)
    assert attic.pins.journal.all() == []


# -- the trash -----------------------------------------------------------------------------------------------------


async def test_what_is_in_the_trash_stays_for_the_window(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    await attic.pins.journal.record([attic.removal(pin)])
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)
    assert attic.says(pin) == "lying"


async def test_then_it_goes_and_the_record_of_it_stays(make_attic: MakeAttic, barn: Node) -> None:
    """Without the record another node's removal of it would be news, and what was put back since would be removed."""
    attic = await make_attic(trash="1s")
    pin = await due(attic, attic.node, barn)
    await attic.pins.sweeper.sweep()
    assert not attic.has(pin)
    assert attic.says(pin) == "gone"
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "gone"


async def due(attic: Attic, *holders: Node) -> Pin:
    """An entry whose one second in the trash is over."""
    pin = attic.entry(*holders, kept=False)
    await attic.pins.journal.record([attic.removal(pin)])
    await until(lambda: all(t.age_s > 1 for t in attic.pins.journal.lying()))
    return pin


async def test_what_comes_back_after_the_pinset_was_read_does_not_go(
    make_attic: MakeAttic, barn: Node
) -> None:
    attic = await make_attic(trash="1s")
    pin = await due(attic, attic.node, barn)

    async def restored() -> None:
        attic.keep(pin)

    attic.fake_cluster.listed = restored
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


async def test_what_is_being_restored_does_not_go_although_its_time_is_over(
    make_attic: MakeAttic, barn: Node
) -> None:
    """The others heard of the removal when this node did: all copies could go while the record is on its way to the pinset."""
    attic = await make_attic(trash="1s")
    pin = await due(attic, attic.node, barn)
    held = attic.fake_cluster.hold("POST pins/one")
    restoring = asyncio.create_task(attic.pins.remover.restore(pin.name, silent))
    await attic.fake_cluster.began["POST pins/one"].wait()
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)
    held.set()
    await restoring
    assert attic.has(pin)
    assert attic.says(pin) == ""


async def test_a_restore_waits_for_what_is_just_being_unpinned(make_attic: MakeAttic, barn: Node) -> None:
    """Else it would count a copy that is gone a moment later."""
    attic = await make_attic(trash="1s")
    pin = await due(attic, attic.node)
    held = attic.fake_kubo.hold("pin/rm")
    sweeping = asyncio.create_task(attic.pins.sweeper.sweep())
    await attic.fake_kubo.began["pin/rm"].wait()
    attic.fake_cluster.hold("POST pins/one").set()
    commit = asyncio.create_task(attic.fake_cluster.began["POST pins/one"].wait())
    restoring = asyncio.create_task(attic.pins.remover.restore(pin.name, silent))
    await asyncio.wait([commit], timeout=0.3)
    assert not commit.done(), "it does not ask who holds it yet"
    commit.cancel()
    held.set()
    with pytest.raises(MeshError) as caught:
        await restoring
    assert caught.value.code is Code.NOT_FOUND
    await sweeping
    assert pin.cid not in attic.fake_cluster.records


async def test_what_could_not_be_restored_goes_when_its_time_is_over(
    make_attic: MakeAttic, barn: Node
) -> None:
    attic = await make_attic(trash="1s")
    pin = await due(attic, attic.node, barn)
    attic.fake_cluster.refuses = "no"
    with pytest.raises(MeshError):
        await attic.pins.remover.restore(pin.name, silent)
    await attic.pins.sweeper.sweep()
    assert not attic.has(pin)


async def test_a_removal_that_is_recorded_after_the_pinset_was_read_stays(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)

    async def removed() -> None:
        await attic.pins.journal.record([attic.removal(pin)])

    attic.fake_cluster.listed = removed
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "lying"


async def test_what_another_node_puts_back_is_found_however_many_sweeps_found_nothing(
    attic: Attic, barn: Node
) -> None:
    """Else it would go at the end of the window, as if it were not in the pinset."""
    pin = attic.entry(attic.node, barn, kept=False)
    await attic.pins.journal.record([attic.removal(pin)])
    for _ in range(2):
        await attic.pins.sweeper.sweep()
        assert attic.says(pin) == "lying"
    attic.keep(pin)
    await attic.pins.sweeper.sweep()
    assert (attic.says(pin), attic.has(pin)) == ("", True)


async def test_a_removal_that_gets_out_of_the_pinset_after_that_was_read_stays(
    attic: Attic, barn: Node
) -> None:
    """It was recorded before, so the list that still has it would take it for one that was put back."""
    pin = attic.entry(attic.node, barn)
    await attic.pins.journal.record([attic.removal(pin)])

    async def taken_out() -> None:
        del attic.fake_cluster.records[pin.cid]

    attic.fake_cluster.listed = taken_out
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "lying"


async def test_on_a_full_disk_the_oldest_goes_before_its_time_and_no_other(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (attic.entry(attic.node, barn, kept=False) for _ in range(2))
    for pin in (old, new):
        await attic.pins.journal.record([attic.removal(pin)])
    monkeypatch.setattr(Storage, "room", lambda _: Room(1000, 0, 100, None))
    await attic.pins.sweeper.sweep()
    assert (attic.has(old), attic.has(new)) == (False, True)


async def test_a_disk_that_takes_nothing_is_no_want_of_room(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    await attic.pins.journal.record([attic.removal(pin)])
    attic.pins.storage.unwritable = "Input/output error"
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)


# -- when the cluster asks to unpin --------------------------------------------------------------------------------


async def test_what_the_cluster_wants_gone_is_recorded_and_not_let_go(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False, owner=barn.fingerprint)
    await attic.pins.sweeper.removed(pin.cid)
    assert attic.has(pin)
    record = attic.pins.journal.get(pin.cid)
    assert record is not None
    assert (record.name, record.owner, record.by) == (pin.name, barn.fingerprint, "")


async def test_what_is_in_the_pinset_is_not_recorded_as_removed(attic: Attic, barn: Node) -> None:
    """The cluster asks so where an allocation moved."""
    pin = attic.entry(attic.node, barn)
    await attic.pins.sweeper.removed(pin.cid)
    assert attic.says(pin) == ""
    assert attic.has(pin)


async def test_what_is_not_here_is_not_recorded_as_removed(attic: Attic, barn: Node) -> None:
    """The cluster asks also for what was just allocated to others: a record would have their copies go."""
    pin = attic.entry(barn, here=False, kept=False)
    await attic.pins.sweeper.removed(pin.cid)
    assert attic.says(pin) == ""


async def test_a_removal_is_recorded_though_the_entry_cannot_be_read(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    attic.fake_kubo.fails["dag/get"] = "out of order"
    await attic.pins.sweeper.removed(pin.cid)
    assert attic.says(pin) == "lying"
    assert attic.has(pin)


async def test_a_removal_that_is_under_way_is_not_taken_for_one_that_was_put_back(
    attic: Attic, barn: Node
) -> None:
    """It is recorded first, and in the pinset for a moment still."""
    pin = attic.entry(attic.node, barn)
    await attic.pins.journal.record([attic.removal(pin)])
    attic.pins.remover.under_way.add(pin.cid)
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "lying"
    attic.pins.remover.under_way.clear()
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "", "and afterwards it is"
