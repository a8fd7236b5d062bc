"""However many entries are short of copies, a bounded number is seen to at once, and all are in the end."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins import placement, rebalance
from meshd.pins.rebalance import Rebalancer
from meshd.pins.wait import Kept
from meshd.wire import Emit
from tests.pins.listed import Listed
from tests.waiting import until

NODES = ("attic", "barn", "cellar")


class Pinset:
    """A cluster that has these entries, in which commits and copies come when the test says so."""

    def __init__(self, pins: Iterable[Pin]) -> None:
        self.pins = {p.cid: p for p in pins}
        self.listed = Listed(self.pins.values)
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.tried: Counter[str] = Counter()
        self.silent: set[str] = set()  # entries whose new node never answers
        self.refused: set[str] = set()  # entries that cannot be committed

    def candidates(self) -> list[placement.Candidate]:
        return [
            placement.Candidate(f"f-{n}", n, "", 10**12, accepts=True, reachable=True, away_s=0.0)
            for n in NODES
        ]

    async def change(self, before: Pin, allocations: tuple[str, ...]) -> Pin:
        pin = dataclasses.replace(before, allocations=allocations)
        self.tried[pin.cid] += 1
        self.under_way[pin.cid] += 1
        self.most = max(self.most, self.under_way.total())
        await asyncio.sleep(0)
        if pin.cid in self.refused:
            self.under_way[pin.cid] -= 1
            raise MeshError(Code.ENGINE_FAILED, "cannot commit")
        return pin

    async def wait(self, pin: Pin, emit: Emit) -> Kept:
        try:
            if pin.cid in self.silent:
                await asyncio.Event().wait()
            for _ in range(20):  # a copy takes longer than a commit
                await asyncio.sleep(0)
            self.pins[pin.cid] = pin
            return Kept(pin, (), {})
        finally:
            self.under_way[pin.cid] -= 1


def short(count: int) -> list[Pin]:
    """Entries on one node that are wanted on three."""
    return [Pin(f"c{n:05}", f"name-{n}", "f1", "r", 5, 1.0, 3, allocations=("attic",)) for n in range(count)]


@pytest.fixture
async def made(store: MeshStore) -> AsyncIterator[Any]:
    rebalancers: list[Rebalancer] = []
    pinsets: list[Pinset] = []

    def make(pinset: Any) -> Rebalancer:
        pinsets.append(pinset)
        rebalancers.append(
            Rebalancer(
                pinset=pinset.listed,
                store=store,
                nodes=pinset,
                committer=pinset,
                waiter=pinset,
                peer_states=no_peers,
                heal_after_s=600.0,
            )
        )
        return rebalancers[-1]

    yield make
    for each in rebalancers:
        await each.stop()
    for each_pinset in pinsets:
        each_pinset.listed.close()


def no_peers() -> Iterable[PeerState]:
    return ()


async def test_ten_thousand_short_entries_are_seen_to_a_few_at_a_time_and_each_once(made: Any) -> None:
    pinset = Pinset(short(10_000))
    rebalancer = made(pinset)
    for turn in range(10):
        await rebalancer.turn()
        assert rebalancer.short == 10_000 - 1000 * turn
        await until(lambda: not rebalancer.under_way, 60)
    assert all(len(p.allocations) == 3 for p in pinset.pins.values())
    assert 0 < pinset.most <= rebalance.UNDER_WAY_MOST
    assert set(pinset.tried.values()) == {1}


async def test_the_next_turn_goes_on_where_the_one_before_stopped(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind have their turn also where the first ones cannot be helped; and then the first ones come again."""
    monkeypatch.setattr(rebalance, "_WAITING_MOST", 10)
    monkeypatch.setattr(rebalance, "_STEP", 5)
    monkeypatch.setattr(rebalance, "_AGAIN_S", 0.0)
    elsewhere = [dataclasses.replace(p, cid=f"d{p.cid}", allocations=("barn",)) for p in short(10)]
    pinset = Pinset([*short(20), *elsewhere])
    pinset.refused = set(pinset.pins)
    rebalancer = made(pinset)
    for _ in range(6):
        await rebalancer.turn()
        await until(lambda: not rebalancer.under_way)
    assert set(pinset.tried.values()) == {2}
    assert len(pinset.tried) == 30


async def test_a_turn_looks_at_a_bounded_number_of_entries(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were all tried a moment ago: so it finds none, and does not look for one through all of them."""
    monkeypatch.setattr(rebalance, "_LOOK_MOST", 200)
    pinset = Pinset(short(1000))
    pinset.refused = set(pinset.pins)
    rebalancer = made(pinset)
    for _ in range(5):
        await rebalancer.turn()
        await until(lambda: not rebalancer.under_way)
    assert set(pinset.tried.values()) == {1}
    assert len(pinset.tried) == 1000


async def test_an_entry_that_is_too_large_for_all_others_is_not_short(made: Any) -> None:
    """Of two with the same allocations."""
    one, other = short(2)
    pinset = Pinset([one, dataclasses.replace(other, size=2 * 10**12)])
    rebalancer = made(pinset)
    await rebalancer.turn()
    assert rebalancer.short == 1
    await until(lambda: not rebalancer.under_way)
    assert list(pinset.tried) == [one.cid]


async def test_a_node_that_never_answers_does_not_keep_the_others_for_ever(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebalance, "_COPY_S", 0.2)
    pinset = Pinset(short(500))
    pinset.silent = {p.cid for p in short(3 * rebalance.UNDER_WAY_MOST)}
    rebalancer = made(pinset)
    await rebalancer.turn()
    others = [cid for cid in pinset.pins if cid not in pinset.silent]
    await until(lambda: all(len(pinset.pins[c].allocations) == 3 for c in others), 60)
    assert pinset.most <= rebalance.UNDER_WAY_MOST


async def test_those_that_were_tried_come_after_those_that_were_not(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those that fail again and again, being the first of the list, would be the only ones ever tried."""
    monkeypatch.setattr(rebalance, "_AGAIN_S", 0.0)
    monkeypatch.setattr(rebalance, "UNDER_WAY_MOST", 2)
    pinset = Pinset(short(2))
    pinset.refused = {"c00000", "c00001"}
    rebalancer = made(pinset)
    await rebalancer.turn()
    await until(lambda: len(pinset.tried) == 2 and not rebalancer.under_way)
    pinset.pins |= {p.cid: p for p in short(4)}
    pinset.silent = set(pinset.pins)
    await rebalancer.turn()
    await until(lambda: pinset.under_way.total() == 2)
    assert pinset.tried == {"c00000": 1, "c00001": 1, "c00002": 1, "c00003": 1}


async def test_a_node_that_is_not_elected_any_more_begins_nothing_new(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebalance, "UNDER_WAY_MOST", 1)
    monkeypatch.setattr(rebalance, "_COPY_S", 0.2)
    pinset = Pinset(short(3))
    pinset.silent = set(pinset.pins)
    rebalancer = made(pinset)
    await rebalancer.turn()
    await until(lambda: pinset.tried["c00000"])
    monkeypatch.setattr(placement, "elected", lambda own, reachable: False)
    await rebalancer.turn()
    await until(lambda: not rebalancer.under_way)
    assert list(pinset.tried) == ["c00000"]


async def test_a_thousand_entries_that_fail_leave_nothing_behind(made: Any) -> None:
    pinset = Pinset(short(1000))
    pinset.refused = set(pinset.pins)
    rebalancer = made(pinset)
    await rebalancer.turn()
    await until(lambda: len(pinset.tried) == 1000 and not rebalancer.under_way, 30)
    await rebalancer.turn()
    assert rebalancer.under_way == 0, "each is tried again only after a while"


async def test_an_entry_whose_copies_are_being_made_is_not_begun_once_more(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebalance, "_AGAIN_S", 0.0)
    pinset = Pinset(short(2))
    pinset.silent = {"c00000", "c00001"}
    rebalancer = made(pinset)
    await rebalancer.turn()
    await until(lambda: pinset.under_way.total() == 2)
    await rebalancer.turn()
    for _ in range(20):  # whatever it began has asked by then
        await asyncio.sleep(0)
    assert pinset.tried == {"c00000": 1, "c00001": 1}


async def test_where_all_have_the_same_allocations_the_first_ones_come_again_too(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebalance, "_WAITING_MOST", 4)
    monkeypatch.setattr(rebalance, "_STEP", 2)
    monkeypatch.setattr(rebalance, "_AGAIN_S", 0.0)
    pinset = Pinset(short(10))
    pinset.refused = set(pinset.pins)
    rebalancer = made(pinset)
    for _ in range(5):
        await rebalancer.turn()
        await until(lambda: not rebalancer.under_way)
    assert set(pinset.tried.values()) == {2}
    assert len(pinset.tried) == 10
