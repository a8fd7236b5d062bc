"""While a copy is made, whoever waits for it hears how much of it is there: changed numbers only, and seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest

from meshd import wire
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import copies, timeouts
from meshd.pins.copies import Asker, Copies
from meshd.pins.nodes import Nodes
from meshd.pins.wait import Waiter
from tests.waiting import until

SIZE = 1_000_000
PIN = Pin(cid="c1", name="x", owner="f", root="r", size=SIZE, time=0.0, wanted=1, allocations=("C-barn",))


class Barn:
    """The only node, which is fetching; a mesh and its copies in one."""

    def __init__(self) -> None:
        self.state: Any = "fetching"
        self.step = 0  # bytes from one question to the next
        self.bytes = 0
        self.asked = 0
        self.asker_of_it = Asker("barn", self.confirm)

    async def confirm(self, cids: list[str]) -> wire.Confirmed:
        self.asked += 1
        self.bytes += self.step
        return wire.Confirmed(
            states=dict.fromkeys(cids, self.state), fetched_bytes=dict.fromkeys(cids, self.bytes)
        )

    def members(self) -> list[wire.Member]:
        return [
            wire.Member(
                name="barn",
                fingerprint="f-barn",
                address="10.0.0.2",
                kubo_id="K",
                cluster_id="C-barn",
                certificate="",
                peer_port=4010,
                swarm_port=4001,
                cluster_port=9096,
            )
        ]

    def by_fingerprint(self, fingerprint: str) -> wire.Member | None:
        return next((m for m in self.members() if m.fingerprint == fingerprint), None)

    def asker(self, _: wire.Member) -> Asker:
        return self.asker_of_it


class Listener:
    """What the wait says, and when."""

    def __init__(self, barn: Barn) -> None:
        nobody = cast(Any, None)
        nodes = Nodes(nobody, cast(MeshStore, barn), nobody, peer_states=list)
        self.waiter = Waiter(cast(Copies, barn), nodes)
        self.heard: list[tuple[float, wire.Wire]] = []

    async def emit(self, event: wire.Wire) -> None:
        self.heard.append((asyncio.get_running_loop().time(), event))

    @property
    def fetching(self) -> list[tuple[float, wire.FetchingEvent]]:
        return [(at, event) for at, event in self.heard if isinstance(event, wire.FetchingEvent)]


@pytest.fixture
async def barn(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Barn]:
    monkeypatch.setattr(copies, "LONGEST_PAUSE", copies.FIRST_PAUSE)  # it is asked often
    made = Barn()
    yield made
    await made.asker_of_it.stop()


async def test_a_node_that_fetches_is_told_with_its_bytes_and_not_more_often_than_once_a_second(
    barn: Barn,
) -> None:
    barn.step = 1000
    listener = Listener(barn)
    seeing = asyncio.create_task(listener.waiter.wait(PIN, listener.emit))
    await until(lambda: len(listener.fetching) >= 3)
    barn.state = "held"
    kept = await seeing
    assert [m.name for m in kept.held] == ["barn"]
    times, events = zip(*listener.fetching, strict=True)
    assert min(after - before for before, after in pairwise(times)) > timeouts.TELL_EVERY_S - 0.05
    assert barn.asked > 2 * len(events)
    assert {(event.node, event.size) for event in events} == {("barn", SIZE)}
    assert [event.bytes for event in events] == sorted({event.bytes for event in events})
    assert isinstance(listener.heard[-1][1], wire.CopyEvent), "and then it is there"


async def test_a_number_that_stays_is_told_once_and_is_never_more_than_the_whole(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "TELL_EVERY_S", 0.0)
    barn.bytes = SIZE + 190  # the blocks take a little more
    listener = Listener(barn)
    seeing = asyncio.create_task(listener.waiter.wait(PIN, listener.emit))
    await until(lambda: barn.asked > 5)
    barn.state = "held"
    await seeing
    assert [event.bytes for _, event in listener.fetching] == [SIZE]


async def test_of_a_node_that_does_not_say_nothing_is_told(barn: Barn) -> None:
    """One of 0.1.0, or one that has nothing of it yet."""
    listener = Listener(barn)
    seeing = asyncio.create_task(listener.waiter.wait(PIN, listener.emit))
    await until(lambda: barn.asked > 5)
    barn.state = "held"
    await seeing
    assert listener.fetching == []
