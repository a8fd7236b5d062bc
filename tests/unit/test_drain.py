"""Who leaves takes nothing along, whoever else leaves or is forgotten at the same moment."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.mesh import state
from meshd.model import Pin
from meshd.pins import timeouts
from meshd.pins.copies import Copies
from meshd.wire import Member, Roster
from tests.unit.draining import Host, SharedPinset, World
from tests.waiting import until

SEEDS = range(12)


async def _ended(world: World) -> None:
    for host in world.nodes.values():
        await host.copies.stop()
        host.pinset.close()


def _where(world: World, cid: str) -> set[str]:
    return {name for name, host in world.nodes.items() if cid in host.held}


@pytest.mark.parametrize("seed", SEEDS)
async def test_two_that_leave_at_once_lose_nothing(tmp_path: Path, seed: int) -> None:
    world = await World(tmp_path, seed).build("attic", "barn", "cellar")
    pairs = (("barn", "cellar"), ("attic", "barn"), ("attic", "cellar"))
    for number in range(6):
        world.pin(f"c{number}", *pairs[number % 3])
        world.pin(f"single{number}", ("barn", "cellar")[number % 2], wanted=1)
    barn, cellar = world.nodes["barn"], world.nodes["cellar"]
    assert set(await asyncio.gather(barn.leave(), cellar.leave())) == {None}
    assert all(_where(world, cid) == {"attic"} for cid in world.pinset)
    await _ended(world)


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_four_two_leave_and_each_entry_has_as_many_copies_as_wanted(
    tmp_path: Path, seed: int
) -> None:
    world = await World(tmp_path, seed).build("attic", "barn", "cellar", "dairy")
    world.pin("c0", "barn", "cellar")
    world.pin("c1", "attic", "barn")
    world.pin("c2", "barn", wanted=1)
    world.pin("c3", wanted="all", held=("attic", "barn", "cellar", "dairy"))
    barn, cellar = world.nodes["barn"], world.nodes["cellar"]
    assert set(await asyncio.gather(barn.leave(), cellar.leave())) == {None}
    assert [len(_where(world, cid)) for cid in ("c0", "c1", "c2", "c3")] == [2, 2, 1, 2]
    await _ended(world)


@pytest.mark.parametrize("seed", SEEDS)
async def test_where_all_leave_at_once_one_stays_and_has_everything(tmp_path: Path, seed: int) -> None:
    world = await World(tmp_path, seed).build("attic", "barn", "cellar")
    world.pin("c0", "attic", "barn")
    world.pin("c1", "barn", "cellar")
    world.pin("c2", "cellar", "attic")
    hosts = list(world.nodes.values())
    answers = await asyncio.gather(*(h.leave() for h in hosts))
    refused = [(h, a) for h, a in zip(hosts, answers, strict=True) if a is not None]
    assert refused, "somebody must stay"
    for host, answer in refused:
        assert answer.code in (Code.LAST_COPY, Code.FEWER_COPIES, Code.BUSY)
        assert not host.store.me().leaving_since
    for cid in world.pinset:
        assert _where(world, cid), f"{cid} is nowhere"
    await _ended(world)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_node_is_forgotten_while_another_leaves_and_nothing_is_lost(
    tmp_path: Path, seed: int
) -> None:
    world = await World(tmp_path, seed).build("attic", "barn", "cellar", "dairy")
    world.pin("c0", "barn", "cellar")
    attic, barn = world.nodes["attic"], world.nodes["barn"]

    async def forget() -> MeshError | None:
        try:
            await attic.forget("cellar")
        except MeshError as exc:
            return exc
        return None

    left, forgot = await asyncio.gather(barn.leave(), forget())
    assert left is None
    assert forgot is None or forgot.code is Code.LAST_COPY
    assert _where(world, "c0") & {"attic", "dairy", "cellar"}
    await _ended(world)


async def test_a_copy_that_is_on_its_way_is_waited_for_and_not_ordered_again(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", "barn", held=("barn",))
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    attic.slow = True
    leaving = asyncio.create_task(barn.leave())
    async with asyncio.timeout(20):
        for _ in range(3):  # it goes on asking
            attic.asked.clear()
            await attic.asked.wait()
    assert not leaving.done()
    attic.slow = False
    assert await asyncio.wait_for(leaving, 20) is None
    assert _where(world, "c0") == {"attic"}
    assert world.commits == [], "it was allocated to attic already"
    await _ended(world)


async def test_a_copy_counts_only_on_a_node_that_has_heard_who_leaves(tmp_path: Path) -> None:
    """One that has not may leave at this moment itself, and count on the copy here."""
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", "cellar", wanted=1)
    barn = world.nodes["barn"]
    reach = barn.exchange

    async def all_but_cellar(members: Iterable[Member]) -> set[str]:
        return await reach([m for m in members if m.name != "cellar"])

    barn.exchange = all_but_cellar  # type: ignore[method-assign]
    assert await barn.leave() is None
    assert _where(world, "c0") == {"attic", "cellar"}
    await _ended(world)


async def test_a_record_that_another_node_changes_meanwhile_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it could not be changed says nothing of the node that was asked: attic is the only one left."""
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", wanted=1)
    world.nodes["cellar"].away = True
    look = SharedPinset.allocation

    async def changed_just_now(self: SharedPinset, cid: str) -> Pin | None:
        if world.pinset[cid].allocations == ("clusterbarn",):
            world.pinset[cid] = dataclasses.replace(
                world.pinset[cid], allocations=("clusterbarn", "clustercellar")
            )
        return await look(self, cid)

    monkeypatch.setattr(SharedPinset, "allocation", changed_just_now)
    assert await world.nodes["barn"].leave() is None
    assert _where(world, "c0") == {"attic"}
    await _ended(world)


@pytest.mark.parametrize(("times", "left"), [(1, True), (99, False)])
async def test_who_relied_on_one_that_begins_to_leave_looks_again_and_not_for_ever(
    tmp_path: Path, times: int, left: bool
) -> None:
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", "barn", wanted=1)
    barn = world.nodes["barn"]
    resign, refused = barn.resign, 0

    async def busy(relying_on: set[str]) -> None:
        nonlocal refused
        refused += 1
        if refused <= times:
            raise MeshError(Code.BUSY, "cannot leave now")
        await resign(relying_on)

    barn.resign = busy  # type: ignore[method-assign]
    answer = await barn.leave()
    assert (answer is None) is left
    if answer is not None:
        assert (answer.code, answer.hint) == (Code.BUSY, "meshctl leave")
        assert not barn.store.me().leaving_since, "it stays"
    assert "attic" in _where(world, "c0")
    await _ended(world)


async def test_nobody_is_forgotten_relying_on_one_who_has_not_heard_of_it(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", "cellar")
    attic = world.nodes["attic"]

    async def nobody(_: Iterable[Member]) -> set[str]:
        return set()

    with pytest.raises(MeshError) as caught:
        await attic.drain.check_forget(world.nodes["barn"].store.me(), nobody)
    assert caught.value.code is Code.LAST_COPY
    await attic.drain.check_forget(world.nodes["barn"].store.me(), attic.exchange)
    await _ended(world)


async def test_where_nobody_has_room_it_says_who_and_what_would_be_lost(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("only", "barn", wanted=1)
    world.pin("twice", "attic", "barn")
    world.nodes["attic"].full = world.nodes["cellar"].full = True
    refused = await world.nodes["barn"].leave()
    assert refused is not None
    assert refused.code is Code.LAST_COPY
    assert refused.detail == (
        "no other node that stays holds only.txt; twice.txt would have fewer copies than wanted; "
        "attic: it takes nothing now; cellar: it takes nothing now"
    )
    assert "their content is gone then" in refused.hint
    assert not world.nodes["barn"].store.me().leaving_since
    assert not world.nodes["attic"].store.by_fingerprint(world.nodes["barn"].fingerprint).leaving_since  # type: ignore[union-attr]
    assert _where(world, "only") == {"barn"}

    world.nodes["cellar"].full = False
    del world.pinset["twice"]
    assert await world.nodes["barn"].leave() is None
    await _ended(world)


async def test_where_only_some_copies_would_be_missing_force_loses_nothing(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("twice", "attic", "barn")
    world.nodes["cellar"].full = True
    refused = await world.nodes["barn"].leave()
    assert refused is not None
    assert refused.code is Code.FEWER_COPIES
    assert "nothing is lost" in refused.hint
    await _ended(world)


async def test_the_copy_of_a_node_that_is_away_does_not_count(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", "barn")
    world.nodes["attic"].away = True
    refused = await world.nodes["barn"].leave()
    assert refused is not None
    assert refused.code is Code.LAST_COPY
    assert "attic: it is away" in refused.detail
    await _ended(world)


async def test_a_copy_that_may_be_let_go_at_any_moment_does_not_count(tmp_path: Path) -> None:
    """cellar had it before it was given to barn alone, and its sweep has not come by yet."""
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", wanted=1, held=("barn", "cellar"))
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    with pytest.raises(MeshError) as caught:
        await attic.drain.check_forget(barn.store.me(), attic.exchange)
    assert caught.value.code is Code.LAST_COPY
    assert await barn.leave() is None
    assert any(
        world.nodes[name].cluster_id in world.pinset["c0"].allocations for name in _where(world, "c0")
    ), "it is now where it shall be"
    await _ended(world)


async def test_what_is_not_here_keeps_nobody(tmp_path: Path) -> None:
    """It was lost before; to stay would not bring it back."""
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", "barn", held=())
    assert await world.nodes["barn"].leave() is None
    await _ended(world)


async def test_two_of_one_name_are_two(tmp_path: Path) -> None:
    """Two sides that were apart can admit the same name; one copy is not two for that."""
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", "cellar")
    barn, attic, cellar = world.nodes["barn"], world.nodes["attic"], world.nodes["cellar"]
    for host in (attic, cellar):
        host.joiner = host.joiner.model_copy(update={"name": "twin"})
        await host.store.update_self(host.joiner)
        await host.exchange(host.store.peers())
    attic.full = True
    refused = await barn.leave()
    assert refused is not None
    assert refused.code is Code.FEWER_COPIES
    await _ended(world)


async def test_a_leave_that_was_cut_off_is_none_after_a_restart(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    barn = world.nodes["barn"]
    await barn.store.set_leaving(True)
    again = Host.__new__(Host)  # the same folder, read anew
    again.__dict__ |= barn.__dict__
    again.store = type(barn.store)(tmp_path / "barn", barn.fingerprint)
    assert again.store.me().leaving_since
    await again.store.update_self(barn.joiner)
    assert not again.store.me().leaving_since
    assert isinstance(again.copies, Copies)
    await _ended(world)


async def test_nobody_is_forgotten_relying_on_one_who_leaves(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn", "cellar")
    attic, barn, cellar = world.nodes["attic"], world.nodes["barn"], world.nodes["cellar"]
    world.pin("c0", "barn", "cellar")
    relying_on = await attic.drain.check_forget(cellar.store.me(), attic.exchange)
    assert barn.fingerprint in relying_on
    await barn.store.set_leaving(True)
    await barn.exchange(barn.store.peers())
    with pytest.raises(MeshError) as caught:
        await attic.store.forget(cellar.fingerprint, by=attic.fingerprint, relying_on=relying_on)
    assert caught.value.code is Code.BUSY
    assert not attic.store.by_fingerprint(cellar.fingerprint).forgotten  # type: ignore[union-attr]
    await _ended(world)


async def test_where_one_that_was_relied_on_begins_to_leave_it_is_looked_at_anew(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn", "cellar", "dairy")
    world.pin("c0", "barn", "cellar", "dairy", wanted=3)
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    relied: list[set[str]] = []

    async def barn_leaves_meanwhile(member: Member, relying_on: set[str]) -> wire.Forgotten:
        relied.append(relying_on)
        if len(relied) == 1:
            await barn.store.set_leaving(True)
            await barn.exchange(barn.store.peers())
        return await attic.state_forgotten(member, relying_on)

    await attic.drain.forget(world.nodes["cellar"].store.me(), attic.exchange, barn_leaves_meanwhile)
    assert [barn.fingerprint in each for each in relied] == [True, False]
    assert world.nodes["cellar"].gone
    await _ended(world)


async def test_where_others_go_on_leaving_forget_gives_up_and_says_what_to_type(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    attic = world.nodes["attic"]

    async def busy(member: Member, relying_on: set[str]) -> wire.Forgotten:
        raise MeshError(Code.BUSY, "cannot forget that node now")

    with pytest.raises(MeshError) as caught:
        await attic.drain.forget(world.nodes["barn"].store.me(), attic.exchange, busy)
    assert (caught.value.code, caught.value.hint) == (Code.BUSY, "meshctl forget barn")
    await _ended(world)


async def test_of_all_that_is_short_it_is_said_what_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there is nobody left to ask for one entry, the other one is tried, and counted."""
    monkeypatch.setattr(timeouts, "given_up", lambda _state, waited_s, away: waited_s > 0.2)
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("twice", "attic", "barn")
    world.pin("only", "attic")
    world.nodes["barn"].slow = world.nodes["cellar"].away = True
    refused = await world.nodes["attic"].leave()
    assert refused is not None
    assert refused.code is Code.LAST_COPY
    assert "no other node that stays holds only.txt" in refused.detail
    assert "meshctl forget cellar" in refused.hint, "a node that is away for good keeps nobody"
    await _ended(world)


async def test_who_has_nothing_stays_while_another_hands_over_to_it(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", wanted=1)
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    barn.slow = True
    leaving = asyncio.create_task(attic.leave())
    await asyncio.wait_for(barn.asked.wait(), 20)
    refused = await barn.leave()
    assert refused is not None
    assert refused.code is Code.BUSY
    assert "may count on this node" in refused.detail
    barn.slow = False
    assert await asyncio.wait_for(leaving, 20) is None
    assert _where(world, "c0") == {"barn"}
    assert await barn.leave() is not None, "it is the only holder now"
    await _ended(world)


async def test_clocks_that_are_apart_let_no_two_go(tmp_path: Path) -> None:
    """By attic's clock it began last, so barn counts on it; attic had seen barn's copy before barn began."""
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "attic", "barn")
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    attic.ahead_s = 600.0
    resign = attic.resign

    async def meanwhile(relying_on: set[str]) -> None:
        assert relying_on == {barn.fingerprint}
        assert await barn.leave() is None
        await resign(relying_on)

    attic.resign = meanwhile  # type: ignore[method-assign]
    refused = await attic.leave()
    assert refused is not None
    assert _where(world, "c0") == {"attic"}
    await _ended(world)


async def test_who_is_forgotten_while_it_hands_over_keeps_what_it_has(tmp_path: Path) -> None:
    world = await World(tmp_path).build("attic", "barn")
    world.pin("c0", "barn", wanted=1)
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    attic.slow = True
    leaving = asyncio.create_task(barn.leave())
    await asyncio.wait_for(attic.asked.wait(), 20)
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    await attic.exchange([barn.store.me()])
    attic.slow = False
    refused = await asyncio.wait_for(leaving, 20)
    assert refused is not None
    assert refused.code is Code.FORGOTTEN
    assert "barn" in _where(world, "c0")
    await _ended(world)


async def test_a_leave_that_is_cut_off_while_its_mark_is_written_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World(tmp_path).build("attic", "barn")
    attic = world.nodes["attic"]
    begun, go_on, write = threading.Event(), threading.Event(), state.write

    def slowly(path: Path, what: state.MeshState) -> None:
        begun.set()
        assert go_on.wait(20)
        write(path, what)

    monkeypatch.setattr(state, "write", slowly)
    leaving = asyncio.create_task(attic.leave())
    await until(begun.is_set)
    leaving.cancel()
    go_on.set()
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    await attic.store.settled()
    await attic.store.update_self(attic.joiner)
    assert not attic.store.me().leaving_since
    await _ended(world)


async def test_a_mark_from_the_future_is_none(tmp_path: Path) -> None:
    """Nothing that the node says later could take it back."""
    world = await World(tmp_path).build("attic", "barn")
    attic, barn = world.nodes["attic"], world.nodes["barn"]
    forged = attic.store.me().model_copy(update={"leaving_since": 5.0, "leaving_stamp": 1e12})
    await barn.store.merge(Roster(members=[forged]))
    await attic.store.merge(Roster(members=[forged]))
    assert [m.name for m in barn.store.staying(barn.fingerprint)] == ["attic"]
    assert not attic.store.me().leaving_since
    await _ended(world)


async def test_a_hundred_thousand_entries_hold_up_nobody(tmp_path: Path) -> None:
    """Counted, not timed: others have their turn every few hundred entries."""
    world = await World(tmp_path).build("attic", "barn")
    attic = world.nodes["attic"]
    for number in range(6000):
        world.pin(f"c{number}", "attic", "barn")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    staying = attic.store.staying(attic.fingerprint)
    before = turns
    assert await attic.drain._short(staying, {m.fingerprint for m in staying}) == []
    assert turns - before >= 12
    beside.cancel()
    await asyncio.wait([beside])
    await _ended(world)


async def test_one_that_leaves_while_it_is_waited_for_is_soon_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "SILENT_S", 3600.0)
    monkeypatch.setattr(timeouts, "AWAY_S", 0.1)
    world = await World(tmp_path).build("attic", "barn", "cellar")
    world.pin("c0", "barn", wanted=1)
    attic, barn, cellar = (world.nodes[name] for name in ("attic", "barn", "cellar"))
    attic.full = cellar.slow = True
    leaving = asyncio.create_task(barn.leave())
    await until(lambda: world.commits, 20)
    assert await cellar.leave() is None, "it holds nothing yet"
    attic.full = False
    assert await asyncio.wait_for(leaving, 20) is None
    assert _where(world, "c0") == {"attic"}
    await _ended(world)
