"""A collection of garbage and an entry that is being made keep out of each other's way.

kubo's `dag/put` waits for no collection, so one that runs meanwhile takes the entry's block before it is pinned; its `pin/add`
then waits for a block that nobody has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.pins.wiring import Pins
from tests.pins.conftest import CONTENT
from tests.pins.fake_engines import FakeCluster, FakeKubo
from tests.pins.told import Told
from tests.waiting import until


@pytest.fixture
async def collector(pins: Pins) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(pins.garbage.run())
    yield task
    task.cancel()
    await asyncio.wait([task])


async def test_an_entry_is_made_only_once_a_collection_has_ended(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, told: Told, collector: asyncio.Task[None]
) -> None:
    collected = kubo.hold("repo/gc")
    pins.garbage.request()
    await kubo.began["repo/gc"].wait()
    pinning = asyncio.create_task(pins.pinner.existing(CONTENT, "minutes.pdf", 1, told))
    await until(lambda: any("garbage" in e.message for e in told.events if isinstance(e, wire.StepEvent)))
    assert "dag/put" not in kubo.asked
    collected.set()
    await pinning
    assert told.of(wire.PinDoneEvent)
    assert list(kubo.names) == list(cluster.records)
    assert kubo.blocks.keys() == {*kubo.names, CONTENT}, "its block was not collected"


async def test_no_collection_begins_while_an_entry_is_made(
    pins: Pins, kubo: FakeKubo, told: Told, collector: asyncio.Task[None]
) -> None:
    pinned = kubo.hold("pin/add")
    pinning = asyncio.create_task(pins.pinner.existing(CONTENT, "minutes.pdf", 1, told))
    await kubo.began["pin/add"].wait()
    pins.garbage.request()
    pinned.set()
    await pinning
    await until(lambda: "repo/gc" in kubo.asked)
    assert kubo.asked.index("pin/add") < kubo.asked.index("repo/gc")
    assert kubo.blocks.keys() == {*kubo.names, CONTENT}


async def test_who_comes_just_after_the_last_one_left_is_waited_for_too(
    pins: Pins, kubo: FakeKubo, collector: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection was waiting, and is told that nobody is there; before it begins somebody is."""
    waits, wait_idle = asyncio.Event(), pins.uploads.wait_idle

    async def told() -> None:
        waits.set()
        await wait_idle()

    monkeypatch.setattr(pins.uploads, "wait_idle", told)
    leave = pins.uploads.enter()
    pins.garbage.request()
    async with asyncio.timeout(30):
        await waits.wait()
    leave()
    leave_again = pins.uploads.enter()
    await kubo_would_have_been_asked(pins)
    assert "repo/gc" not in kubo.asked
    leave_again()
    await until(lambda: "repo/gc" in kubo.asked)


async def kubo_would_have_been_asked(pins: Pins) -> None:
    """Whoever was about to ask kubo for something did: this asks it after that, on a connection of its own."""
    for _ in range(3):
        await pins.uploads._kubo.pins()


async def test_nobody_waits_for_ever_for_a_collection_that_does_not_end(
    pins: Pins, kubo: FakeKubo, told: Told, collector: asyncio.Task[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.pins.uploads.COLLECTION_S", 0.01)
    kubo.hold("repo/gc")
    pins.garbage.request()
    await kubo.began["repo/gc"].wait()
    with pytest.raises(MeshError) as caught:
        await pins.pinner.existing(CONTENT, "minutes.pdf", 1, told)
    assert caught.value.code is Code.BUSY
    assert (kubo.names, set(kubo.blocks), pins.uploads.count) == ({}, {CONTENT}, 0)
