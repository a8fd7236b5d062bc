"""What is called committed: a record that the cluster took, shows, and has on the disk; and when an old one is replaced."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from meshd.cluster.rest import RoomUnknownError
from meshd.errors import Code, MeshError
from meshd.files import Disk
from meshd.model import Pin
from meshd.pins import commit
from meshd.pins.commit import Committer, known_among
from meshd.pins.nodes import Nodes
from meshd.pins.storage import Storage
from tests.pins.fake_engines import FakeCluster
from tests.unit.draining import World
from tests.waiting import until

POST, LOOK = "POST pins/one", "GET allocations/one"


class SyncedDisk(Disk):
    """synced: what the cluster's list had at each sync."""

    def __init__(self, folder: Path, cluster: FakeCluster) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.synced: list[set[str]] = []
        self.broken = False

    async def sync(self) -> None:
        if self.broken:
            raise MeshError(Code.BAD_STATE, "cannot keep anything here")
        self.synced.append(set(self.cluster.records))


class Room:
    """A committer of attic, in a mesh with barn and cellar."""

    def __init__(self, folder: Path, world: World) -> None:
        self.cluster = FakeCluster(folder / "cluster.sock")
        self.cluster.measured = {"clusterattic", "clusterbarn", "clustercellar"}
        attic = world.nodes["attic"]
        nodes = Nodes(self.cluster, attic.store, Storage(folder, reserve=0, offer=None), attic.peer_states)
        self.disk = SyncedDisk(folder, self.cluster)
        self.committer = Committer(self.cluster, nodes, self.disk)

    def asked(self, command: str) -> int:
        return self.cluster.asked.count(command)

    async def refusal(self, before: Pin, *nodes: str) -> MeshError:
        with pytest.raises(MeshError) as caught:
            await self.committer.change(before, on(*nodes))
        return caught.value


def on(*nodes: str) -> tuple[str, ...]:
    return tuple(f"cluster{n}" for n in nodes)


def entry(*nodes: str) -> Pin:
    return Pin("c1", "minutes", "f" * 64, "r1", 50, 1700000000.125, 2, allocations=on(*nodes), files=3)


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    return Room(tmp_path, await World(tmp_path).build("attic", "barn", "cellar"))


# -- a new record --------------------------------------------------------------------------------------------------


async def test_a_record_is_committed_whole_and_is_on_the_disk_by_then(room: Room) -> None:
    assert await room.committer.commit(entry("attic", "barn")) == entry("attic", "barn")
    assert room.disk.synced == [{"c1"}], "once, and after the cluster had it"


async def test_what_is_returned_is_what_the_cluster_recorded_and_not_what_was_asked_for(room: Room) -> None:
    def otherwise(record: dict[str, Any]) -> None:
        record["allocations"] = ["clusterattic", "clustercellar"]

    room.cluster.pinned = otherwise
    assert (await room.committer.commit(entry("attic", "barn"))).allocations == on("attic", "cellar")


async def test_nothing_is_committed_before_the_cluster_shows_it(room: Room) -> None:
    """It answers before its batch is written: what it took may never get there."""
    room.cluster.commits = False
    committing = asyncio.create_task(room.committer.commit(entry("attic")))
    await until(lambda: room.asked(LOOK) >= 3)
    assert (committing.done(), room.disk.synced) == (False, [])
    room.cluster.commits = True
    await room.cluster.pin(entry("attic"))
    assert await committing == entry("attic")


async def test_what_the_cluster_does_not_show_in_time_is_not_committed(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "COMMIT_TIMEOUT", 0.1)
    room.cluster.commits = False
    with pytest.raises(MeshError) as caught:
        await room.committer.commit(entry("attic"))
    assert caught.value.code is Code.NOT_READY
    assert room.disk.synced == []


async def test_what_the_disk_did_not_take_is_not_committed(room: Room) -> None:
    room.disk.broken = True
    with pytest.raises(MeshError) as caught:
        await room.committer.commit(entry("attic"))
    assert caught.value.code is Code.BAD_STATE


async def test_what_the_cluster_refuses_is_told_at_once_and_not_asked_again(room: Room) -> None:
    room.cluster.refuses = "no"
    with pytest.raises(MeshError) as caught:
        await room.committer.commit(entry("attic"))
    assert "no" in caught.value.detail
    assert room.cluster.posted == ["c1"]


# -- nodes whose room is not known yet -----------------------------------------------------------------------------


async def test_a_node_whose_room_is_not_known_yet_is_waited_for(room: Room) -> None:
    room.cluster.measured = {"clusterattic"}
    committing = asyncio.create_task(room.committer.commit(entry("attic", "barn")))
    await until(lambda: room.cluster.posted)
    room.cluster.measured = {"clusterattic", "clusterbarn"}
    assert (await committing).allocations == on("attic", "barn"), "nobody was left out"


async def test_later_the_others_keep_it_without_that_node(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_UNKNOWN_FOR_S", 0.0)
    room.cluster.measured = {"clustercellar", "clusterattic"}
    assert (await room.committer.commit(entry("attic", "barn", "cellar"))).allocations == on(
        "attic", "cellar"
    )


async def test_where_no_room_is_known_at_all_it_fails(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_UNKNOWN_FOR_S", 0.0)
    room.cluster.measured = set()
    with pytest.raises(RoomUnknownError):
        await room.committer.commit(entry("attic", "barn"))
    assert room.cluster.records == {}


def test_nobody_left_is_never_taken_for_everybody() -> None:
    """No allocations mean every node: there the first one stays, and is refused."""
    assert known_among(on("attic", "barn"), {"clusterbarn"}) == on("barn")
    assert known_among(on("attic", "barn"), set()) == on("attic")
    assert known_among((), {"clusterbarn"}) == ()


# -- a record that is there ----------------------------------------------------------------------------------------


async def test_allocations_are_changed_and_nothing_else_is(room: Room) -> None:
    before = await room.committer.commit(entry("attic"))
    changed = await room.committer.change(before, on("attic", "barn"))
    assert changed == dataclasses.replace(before, allocations=on("attic", "barn"))
    assert await room.cluster.allocation("c1") == changed
    assert len(room.disk.synced) == 2


async def test_an_entry_that_was_removed_meanwhile_is_not_put_back(room: Room) -> None:
    refused = await room.refusal(entry("attic"), "attic", "barn")
    assert refused.code is Code.NOT_FOUND
    assert (room.cluster.posted, room.cluster.records) == ([], {})


async def test_a_record_that_another_node_changed_meanwhile_is_not_overwritten(room: Room) -> None:
    """It may count on copies that this change would take back."""
    await room.cluster.pin(entry("attic", "cellar"))
    refused = await room.refusal(entry("attic"), "attic", "barn")
    assert refused.code is Code.NOT_FOUND
    assert await room.cluster.allocation("c1") == entry("attic", "cellar")


async def test_the_same_nodes_in_another_order_are_no_change(room: Room) -> None:
    await room.cluster.pin(entry("barn", "attic"))
    changed = await room.committer.change(entry("attic", "barn"), on("attic", "barn", "cellar"))
    assert changed.allocations == on("attic", "barn", "cellar")


async def test_the_old_record_is_not_taken_for_the_new_one(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a copy would be waited for that nobody was told to make, and the old one let go."""
    monkeypatch.setattr(commit, "COMMIT_TIMEOUT", 0.1)
    before = await room.committer.commit(entry("attic"))
    room.cluster.commits = False
    assert (await room.refusal(before, "barn")).code is Code.NOT_READY
    assert (await room.cluster.allocation("c1")) == before


async def test_a_change_waits_until_the_room_of_the_nodes_is_known(room: Room) -> None:
    before = await room.committer.commit(entry("attic"))
    room.cluster.posted.clear()
    room.cluster.measured.discard("clusterbarn")
    changing = asyncio.create_task(room.committer.change(before, on("attic", "barn")))
    await until(lambda: room.asked("GET monitor") >= 2)
    assert room.cluster.posted == []
    room.cluster.measured.add("clusterbarn")
    assert (await changing).allocations == on("attic", "barn")
    assert room.cluster.posted == ["c1"], "it was not refused for it"
