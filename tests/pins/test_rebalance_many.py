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
from tests.waiting import until

NODES = ("attic", "barn", "cellar")


class Pinset:
    """A cluster that has these entries, in which commits and copies come when the test says so."""

    def __init__(self, pins: Iterable[Pin]) -> None:
        self.pins = {p.cid: p for p in pins}
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self.tried: Counter[str] = Counter()
        self.silent: set[str] = set()  # entries whose new node never answers
        self.refused: set[str] = set()  # entries that cannot be committed

    async def allocations(self) -> list[Pin]:
        return list(self.pins.values())

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

    def make(pinset: Any) -> Rebalancer:
        rebalancers.append(
            Rebalancer(
                pinset=pinset,
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


def no_peers() -> Iterable[PeerState]:
    return ()


async def test_ten_thousand_short_entries_are_seen_to_a_few_at_a_time_and_all_in_one_turn(made: Any) -> None:
    pinset = Pinset(short(10_000))
    rebalancer = made(pinset)
    await rebalancer.turn()
    assert rebalancer.short == 10_000
    await until(lambda: all(len(p.allocations) == 3 for p in pinset.pins.values()), 60)
    assert 0 < pinset.most <= rebalance.UNDER_WAY_MOST
    assert set(pinset.tried.values()) == {1}


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
