"""When two members exchange their rosters: at once where they differ, and not without end where they stay apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from pydantic import BaseModel

from meshd.mesh.heartbeat import Heartbeats
from meshd.wire import Member, verbs
from meshd.wire.verbs import Verb
from tests.mesh_room.nodes import Clock, Node
from tests.waiting import until


class Newer:
    """The other member: it knows more than this node understands, so its roster stays another one after each exchange."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.digest = "another"
        self.beats = 0
        self.exchanges = 0

    async def call(self, peer: Member, verb: Verb[Any, Any], asked: BaseModel) -> BaseModel:
        if verb.path == verbs.BEAT.path:
            self.beats += 1
            return (await self._node.holder.beat()).model_copy(update={"roster_digest": self.digest})
        assert verb.path == verbs.EXCHANGE_ROSTERS.path
        self.exchanges += 1
        return asked

    def keep_only(self, fingerprints: Iterable[str]) -> None:
        """Nothing is open."""


class Watching:
    """attic watches barn, whom `newer` plays. It beats when it is told to."""

    def __init__(self, attic: Node, barn: Node) -> None:
        self.newer = Newer(barn)
        self.monotonic = Clock(1000.0)
        peers: Any = self.newer
        self.heartbeats = Heartbeats(
            attic.store, peers, interval=3600.0, monotonic=self.monotonic, now=attic.now
        )

    async def beats(self, count: int = 1) -> int:
        """So often; how many exchanges there were then."""
        for _ in range(count):
            before = self.newer.beats
            self.heartbeats.poke()
            await until(lambda before=before: self.newer.beats > before)  # type: ignore[misc]
        return self.newer.exchanges


@pytest.fixture
async def watching(pair: tuple[Node, Node]) -> AsyncIterator[Watching]:
    made = Watching(*pair)
    task = asyncio.create_task(made.heartbeats.run())
    await until(lambda: made.newer.beats)
    yield made
    task.cancel()
    await asyncio.wait([task])


async def test_two_rosters_that_stay_apart_are_exchanged_once_a_minute(watching: Watching) -> None:
    assert await watching.beats(4) == 1
    watching.monotonic.at += 59.0
    assert await watching.beats(3) == 1
    watching.monotonic.at += 2.0
    assert await watching.beats(3) == 2


async def test_one_that_changes_again_is_exchanged_at_once(watching: Watching) -> None:
    await watching.beats(2)
    watching.newer.digest = "and another"
    assert await watching.beats(3) == 2


async def test_two_that_are_the_same_are_not_exchanged(pair: tuple[Node, Node], watching: Watching) -> None:
    before = await watching.beats(2)
    watching.newer.digest = pair[0].store.digest()
    watching.monotonic.at += 61.0
    assert await watching.beats(3) == before
