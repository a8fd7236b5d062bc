"""What counts as kept, what an upload that failed leaves, and when garbage is collected."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import EMPTY_BLOCK
from meshd.leaving import Leaving
from meshd.pins.staging import Pending
from meshd.pins.storage import Room, Storage
from meshd.pins.uploads import ADDING, Declared
from meshd.wire import Confirmed
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic
from tests.pins.fake_engines import cid_of
from tests.pins.told import Told
from tests.waiting import until


def some_content(attic: Attic) -> str:
    cid = cid_of(b"some content")
    attic.fake_kubo.blocks[cid] = {"some": "content"}
    return cid


def answers(state: str) -> Callable[[list[str]], object]:
    async def confirm(cids: list[str]) -> Confirmed:
        return Confirmed.model_validate({"states": dict.fromkeys(cids, state)})

    return confirm


# -- kept ----------------------------------------------------------------------------------------------------------


async def test_kept_is_said_of_those_that_hold_it_and_of_no_others(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    barn.holder.confirm = answers("refused")  # type: ignore[method-assign, assignment]
    cellar.holder.confirm = answers("refused")  # type: ignore[method-assign, assignment]
    told = Told()
    await attic.pins.pinner.existing(some_content(attic), "minutes", 2, told)
    assert told.done.degraded
    assert [c.node for c in told.done.entry.copies] == ["attic"]
    assert [e.node for e in told.events if isinstance(e, wire.CopyEvent)] == ["attic"]


async def test_who_refuses_is_replaced_by_another_and_nobody_is_dropped(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    """Dropped from the record, a node lets go: that is for later, once all the others hold it."""
    told = Told()
    refuses = {"barn": barn, "cellar": cellar}
    attic.state(barn, free_bytes=10**15)  # it is chosen first
    refuses["barn"].holder.confirm = answers("refused")  # type: ignore[method-assign, assignment]
    await attic.pins.pinner.existing(some_content(attic), "minutes", 2, told)
    assert not told.done.degraded
    (cid,) = attic.fake_cluster.records
    assert attic.fake_cluster.records[cid]["allocations"] == ["clusterattic", "clusterbarn", "clustercellar"]


async def test_for_one_pin_the_cluster_is_asked_once_whose_room_it_knows(attic: Attic) -> None:
    told = Told()
    await attic.pins.pinner.existing(some_content(attic), "minutes", 3, told)
    assert len(told.done.entry.copies) == 3
    assert attic.fake_cluster.asked.count("GET monitor") == 1


async def test_a_node_without_room_gives_itself_no_copy(attic: Attic, barn: Node) -> None:
    pin = attic.entry(kept=False)
    attic.pins.storage.unwritable = "Input/output error"
    chosen = await attic.pins.nodes.choose(dataclasses.replace(pin, wanted=2), Told())
    assert set(chosen) == {"clusterbarn", "clustercellar"}


async def test_a_record_is_on_the_disk_before_it_is_called_committed(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    pin = attic.entry(attic.node, barn, kept=False)

    async def sync() -> None:
        synced.append(pin.cid in attic.fake_cluster.records)

    monkeypatch.setattr(attic.pins.disk, "sync", sync)
    await attic.pins.committer.commit(pin)
    assert synced == [True], "after the cluster has it"


async def test_an_entry_is_on_the_disk_before_it_is_in_the_pinset(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    async def sync() -> None:
        seen.append((len(attic.fake_kubo.names), len(attic.fake_cluster.records)))

    monkeypatch.setattr(attic.pins.disk, "sync", sync)
    await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert seen[0] == (1, 0)


async def test_an_entry_is_remembered_before_it_is_pinned_and_forgotten_once_it_is_in_the_pinset(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = attic.config.state / "pending.json"
    seen: list[set[str]] = []
    pinned = attic.kubo.pin

    async def pin(cid: str, *rest: object, **options: object) -> None:
        seen.append(Pending(file).left - {cid})
        assert cid in Pending(file).left, "a power cut at this moment"
        await pinned(cid, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attic.kubo, "pin", pin)
    await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert seen == [set()]
    assert Pending(file).left == set()


# -- what fails ----------------------------------------------------------------------------------------------------


async def test_what_could_not_be_made_durable_is_not_pinned(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sync() -> None:
        raise MeshError(Code.BAD_STATE, "cannot keep anything here")

    monkeypatch.setattr(attic.pins.disk, "sync", sync)
    with pytest.raises(MeshError):
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert attic.fake_kubo.names == {}
    assert attic.fake_cluster.records == {}


async def test_what_the_caller_is_told_has_failed_is_kept_nowhere(attic: Attic) -> None:
    attic.fake_cluster.refuses = "no"
    with pytest.raises(MeshError) as caught:
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert "no" in caught.value.detail
    assert attic.fake_kubo.names == {}
    assert Pending(attic.config.state / "pending.json").left == set()


async def test_what_got_into_the_pinset_and_is_told_as_failed_is_taken_out_of_it(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the mesh would keep what nobody was told of."""

    async def sync() -> None:
        if attic.fake_cluster.records:
            raise MeshError(Code.BAD_STATE, "cannot keep anything here")

    monkeypatch.setattr(attic.pins.disk, "sync", sync)
    with pytest.raises(MeshError, match="cannot keep anything here"):
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert (attic.fake_cluster.posted != [], attic.fake_cluster.records) == (True, {})
    assert attic.fake_kubo.names == {}


async def test_what_may_be_in_the_pinset_stays_pinned(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster does not answer any more: the list may have it, and then this may be the only copy."""

    async def away(_: str) -> None:
        raise MeshError(Code.NOT_READY, "cannot reach the cluster")

    attic.fake_cluster.refuses = "no"
    monkeypatch.setattr(attic.cluster, "allocation", away)
    with pytest.raises(MeshError):
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert len(attic.fake_kubo.names) == 1


async def test_nothing_is_taken_below_the_floor_nor_outside_a_mesh(attic: Attic) -> None:
    attic.pins.storage.unwritable = "Input/output error"
    with pytest.raises(MeshError) as caught:
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert caught.value.code is Code.BAD_STATE
    attic.pins.storage.unwritable = ""
    await attic.store.forget(attic.node.fingerprint, by=attic.node.fingerprint)
    with pytest.raises(MeshError) as caught:
        await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert caught.value.code is Code.FORGOTTEN
    assert attic.fake_kubo.asked == []


# -- what a run that was cut off has left --------------------------------------------------------------------------


async def test_an_entry_that_was_not_acknowledged_goes_at_the_next_start(attic: Attic, barn: Node) -> None:
    never, kept, removed = (attic.entry(attic.node, kept=kept) for kept in (False, True, False))
    await attic.pins.journal.record([attic.removal(removed)])
    attic.pins.pending.left = {never.cid, kept.cid, removed.cid}
    await attic.pins.sweeper.sweep()
    assert not attic.has(never)
    assert attic.has(kept), "it got into the pinset"
    assert attic.has(removed), "it got there and was removed from it: the trash has it"
    assert attic.pins.pending.left == set()


async def test_what_protects_an_upload_goes_with_it_and_nothing_else_does(attic: Attic, barn: Node) -> None:
    kept = attic.entry(attic.node)
    mine = attic.entry(kept=False)
    for cid, name in (("left", f"{ADDING}1"), (kept.cid, f"{ADDING}2"), (EMPTY_BLOCK, f"{ADDING}3")):
        attic.fake_kubo.names[cid] = name
    await attic.pins.sweeper.sweep()
    assert set(attic.fake_kubo.names) == {kept.cid, mine.cid, EMPTY_BLOCK}


# -- garbage -------------------------------------------------------------------------------------------------------


async def collecting(attic: Attic) -> asyncio.Task[None]:
    return asyncio.create_task(attic.pins.garbage.run())


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), "it goes on until then"


async def test_no_garbage_is_collected_while_something_is_being_added(attic: Attic) -> None:
    """What is added has no pin yet: a collection would take it away under the upload."""
    leave, other = attic.pins.uploads.enter(), asyncio.Event()

    async def second() -> None:
        leave_too = attic.pins.uploads.enter()
        await other.wait()
        leave_too()

    adding = asyncio.create_task(second())
    task = await collecting(attic)
    attic.pins.garbage.request()
    await attic.time_passes()
    leave()
    await attic.time_passes()
    assert "repo/gc" not in attic.fake_kubo.asked, "one is open still"
    other.set()
    await adding
    await until(lambda: "repo/gc" in attic.fake_kubo.asked)
    await ended(task)


async def test_content_that_is_looked_for_counts_as_being_added(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_then: list[int] = []
    put = attic.kubo.put_entry

    async def counted(document: dict[str, object]) -> str:
        open_then.append(attic.pins.uploads.count)
        return await put(document)

    monkeypatch.setattr(attic.kubo, "put_entry", counted)
    await attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told())
    assert open_then == [1]


async def test_a_collection_that_fails_does_not_end_the_collector(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = asyncio.Event()
    sleep = asyncio.sleep

    async def soon(seconds: float) -> None:
        if seconds == 30:
            attic.fake_kubo.fails.clear()
            waited.set()
        await sleep(0)

    monkeypatch.setattr("meshd.pins.gc.asyncio.sleep", soon)
    attic.fake_kubo.fails["repo/gc"] = "out of order"
    task = await collecting(attic)
    attic.pins.garbage.request()
    async with asyncio.timeout(30):
        await waited.wait()
    await until(lambda: attic.fake_kubo.asked.count("repo/gc") == 2)
    await ended(task)


async def test_what_was_let_go_is_collected_and_what_an_entry_keeps_is_not(attic: Attic, barn: Node) -> None:
    kept, gone = attic.entry(attic.node), attic.entry(attic.node, kept=False)
    task = await collecting(attic)
    await attic.pins.remover.unpin_and_record(gone.cid)
    await until(lambda: gone.root not in attic.fake_kubo.blocks)
    assert {kept.cid, kept.root} <= set(attic.fake_kubo.blocks)
    await ended(task)


# -- before anything is read ---------------------------------------------------------------------------------------


async def upload(attic: Attic) -> Code:
    """Why an upload is refused; nothing of its body is read."""

    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"x")
        yield b"x"

    declared = Declared("minutes", directory=False, size=50, files=1)
    with pytest.raises(MeshError) as caught:
        await attic.pins.pinner.upload(body(), "multipart/form-data; boundary=x", declared, 1, Told())
    assert (read, attic.fake_kubo.asked) == ([], [])
    return caught.value.code


async def test_an_upload_is_refused_before_it_is_read(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "room", lambda _: Room(1000, 149, 100, None))
        assert await upload(attic) is Code.DISK_FLOOR, "50 bytes, and there is room for 49"
    await attic.store.forget(attic.node.fingerprint, by=attic.node.fingerprint)
    assert await upload(attic) is Code.FORGOTTEN


async def test_a_leave_hands_over_what_was_about_to_be_committed_when_it_began(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is told as kept, and this node then removes its copy."""
    seen: list[int] = []

    async def hand_over(*_: object) -> None:
        seen.append(len(attic.fake_cluster.records))
        raise MeshError(Code.BUSY, "cannot leave now")

    monkeypatch.setattr(attic.pins.drain, "hand_over", hand_over)
    ready = cast(Any, SimpleNamespace(is_ready=lambda: True, resign=None, exchange=None))
    leaving = Leaving(
        store=attic.store,
        membership=ready,
        services=ready,
        readiness=ready,
        pins=attic.pins,
        zerotier=ready,
        cleanup=ready,
    )
    commits = attic.fake_cluster.hold("POST pins/one")
    pinning = asyncio.create_task(attic.pins.pinner.existing(some_content(attic), "minutes", 1, Told()))
    await attic.fake_cluster.began["POST pins/one"].wait()
    going = asyncio.create_task(leaving.leave(Told(), force=False, network=False))
    await attic.time_passes()
    commits.set()
    await pinning
    with pytest.raises(MeshError):
        await going
    assert seen == [1]
