"""What is known of the nodes: who is a candidate and with what, who is waited for, and who got no copy and why."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from meshd.errors import Code, MeshError
from meshd.model import Pin, Replicas
from meshd.pins import nodes
from meshd.pins.nodes import Nodes
from meshd.pins.storage import Storage
from tests.pins.fake_engines import FakeCluster
from tests.pins.told import Told
from tests.unit.draining import World
from tests.waiting import until

MONITOR = "GET monitor"


class Seen:
    """The mesh as attic sees it: `states` can be changed, by name."""

    def __init__(self, folder: Path, world: World) -> None:
        self.host = world.nodes["attic"]
        self.world = world
        self.states = {s.name: s for s in self.host.peer_states()}
        self.cluster = FakeCluster(folder / "cluster.sock")
        self.cluster.measured = {h.cluster_id for h in world.nodes.values()}
        self.storage = Storage(folder, reserve=0, offer=None)
        self.nodes = Nodes(self.cluster, self.host.store, self.storage, lambda: self.states.values())

    def state(self, name: str, **changes: object) -> None:
        self.states[name] = dataclasses.replace(self.states[name], **changes)  # type: ignore[arg-type]

    def candidates(self) -> set[str]:
        """Those that could get something new now."""
        found = self.nodes.candidates()
        able = [c for c in found if c.reachable and c.accepts and not c.leaving and c.free > 0]
        return {c.cluster_id.removeprefix("cluster") for c in able}

    async def choose(self, wanted: Replicas, told: Told | None = None) -> set[str]:
        chosen = await self.nodes.choose(entry(wanted), told or Told())
        return {i.removeprefix("cluster") for i in chosen}


def entry(wanted: Replicas, *on: str) -> Pin:
    return Pin("c1", "minutes", "f", "r1", 50, 1.0, wanted, allocations=tuple(f"cluster{n}" for n in on))


@pytest.fixture
async def seen(tmp_path: Path) -> Seen:
    world = await World(tmp_path).build("attic", "barn", "cellar")
    return Seen(tmp_path, world)


# -- candidates ----------------------------------------------------------------------------------------------------


async def test_every_member_is_a_candidate_with_what_is_known_of_it(seen: Seen) -> None:
    assert seen.candidates() == {"attic", "barn", "cellar"}
    seen.state("barn", free_bytes=0)
    seen.state("cellar", accepts=False)
    assert seen.candidates() == {"attic"}
    seen.storage.unwritable = "Input/output error"
    assert seen.candidates() == set()


async def test_a_member_that_no_heartbeat_tells_of_is_away(seen: Seen) -> None:
    del seen.states["barn"]
    assert seen.candidates() == {"attic", "cellar"}


async def test_how_long_one_is_away_counts_from_when_it_was_last_reached(seen: Seen) -> None:
    seen.state("barn", reachable=False, away_since=time.monotonic() - 900.0)
    away = {c.cluster_id: c.away_s for c in seen.nodes.candidates()}
    assert away["clusterbarn"] == pytest.approx(900.0, abs=60.0)
    assert away["clustercellar"] == 0.0


async def test_who_leaves_gets_nothing_new(seen: Seen) -> None:
    barn = seen.world.nodes["barn"]
    await barn.store.set_leaving(True)
    await barn.exchange([seen.host.store.me()])
    assert seen.candidates() == {"attic", "cellar"}
    assert await seen.choose(3) == {"attic", "cellar"}


async def test_whose_copy_is_wanted_the_record_says(seen: Seen) -> None:
    assert [m.name for m in seen.nodes.holders(entry(2, "attic", "cellar"))] == ["attic", "cellar"]
    assert [m.name for m in seen.nodes.holders(entry("all"))] == ["attic", "barn", "cellar"]
    assert (seen.nodes.goal(entry(2)), seen.nodes.goal(entry("all"))) == (2, 3)


async def test_who_was_never_seen_is_not_called_away_and_who_was_forgotten_is_no_member(seen: Seen) -> None:
    """One that just joined is waited for as long as one that is silent."""
    seen.state("barn", reachable=False)
    seen.state("cellar", reachable=False, last_seen=0.0)
    barn = seen.world.nodes["barn"].fingerprint
    assert seen.nodes.away() == {barn}
    assert seen.nodes.is_member(barn)
    await seen.host.store.forget(barn, by=seen.host.fingerprint)
    assert not seen.nodes.is_member(barn)
    assert not seen.nodes.is_member("f" * 64)


# -- the choice ----------------------------------------------------------------------------------------------------


async def test_for_one_pin_the_cluster_is_asked_once_whose_room_it_knows(seen: Seen) -> None:
    assert await seen.choose(3) == {"attic", "barn", "cellar"}
    assert seen.cluster.asked == [MONITOR]


async def test_what_the_cluster_said_holds_for_the_next_pins_and_not_for_ever(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await seen.choose(3)
    assert seen.cluster.asked == [MONITOR], "a burst of pins asks no more than one"
    monkeypatch.setattr(nodes, "_METRICS_FOR_S", 0.0)
    await seen.choose(3)
    assert seen.cluster.asked == [MONITOR] * 2


async def test_what_everybody_shall_hold_is_chosen_for_nobody_and_waits_for_nobody(seen: Seen) -> None:
    seen.state("barn", ready=False)
    assert await seen.nodes.choose(entry("all"), Told()) == ()


async def test_who_is_about_to_be_ready_is_waited_for_where_too_few_are_without_it(seen: Seen) -> None:
    seen.state("barn", ready=False)
    told = Told()
    choosing = asyncio.create_task(seen.choose(3, told))
    await until(lambda: told.events)
    assert told.events[0].model_dump()["message"] == "waiting for barn, just joined or started"
    seen.state("barn", ready=True)
    assert await choosing == {"attic", "barn", "cellar"}
    assert len(told.events) == 1, "said once"


async def test_nobody_is_waited_for_where_enough_are_ready(seen: Seen) -> None:
    seen.state("barn", ready=False)
    told = Told()
    await seen.choose(2, told)
    assert told.events == []


async def test_who_does_not_get_ready_is_done_without(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "JUST_STARTED_S", 0.2)
    seen.state("barn", ready=False, reachable=False)
    seen.state("cellar", ready=False)
    assert "attic" in await seen.choose(3)


async def test_another_node_is_chosen_for_one_whose_room_the_cluster_does_not_know(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "JUST_STARTED_S", 0.1)
    seen.state("barn", free_bytes=10**15)  # it would be the first choice
    seen.cluster.measured.discard("clusterbarn")
    assert await seen.choose(2) == {"attic", "cellar"}


async def test_who_missed_a_beat_is_not_waited_for(seen: Seen) -> None:
    """Its metric ended with it: it would not come for as long as one waits."""
    seen.state("barn", problem="it does not answer")
    seen.cluster.measured.discard("clusterbarn")
    assert await seen.choose(3) == {"attic", "cellar"}
    assert seen.cluster.asked == [MONITOR], "it was not asked again and again"


async def test_where_no_room_is_known_at_all_the_choice_is_not_everybody(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No allocations would mean every node."""
    monkeypatch.setattr(nodes, "JUST_STARTED_S", 0.0)
    seen.cluster.measured = set()
    assert await seen.choose(1) == {"attic"}


async def test_a_cluster_that_does_not_answer_is_told(seen: Seen) -> None:
    seen.cluster.away = {MONITOR}
    with pytest.raises(MeshError) as caught:
        await seen.choose(2)
    assert caught.value.code is Code.NOT_READY


# -- who got none --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"reachable": False}, "it is away"),
        ({"reachable": False, "problem": "no route to host"}, "it is away (no route to host)"),
        ({"ready": False}, "its kubo or cluster does not run"),
        ({"free_bytes": 49}, "it has no room (49 B)"),
        ({"accepts": False}, "it has no room (1.0 GB)"),
        ({}, "its cluster has not said how much room it has; it gets a copy as soon as that is known"),
    ],
)
async def test_who_got_no_copy_is_told_with_why(seen: Seen, state: dict[str, object], why: str) -> None:
    seen.state("barn", **state)
    [missing] = seen.nodes.not_chosen(entry(3, "attic", "cellar"))
    assert (missing.node, missing.state, missing.detail) == ("barn", "missing", why)


async def test_who_was_not_needed_is_told_so(seen: Seen) -> None:
    found = seen.nodes.not_chosen(entry(1, "attic"))
    assert {c.node: c.detail for c in found} == dict.fromkeys(("barn", "cellar"), "it was not needed")
    assert seen.nodes.not_chosen(entry("all")) == []
