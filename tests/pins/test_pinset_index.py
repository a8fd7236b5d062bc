"""The index follows the list and the looks at single records, in whatever order they come; and it is made anew where it fails."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meshd import db
from meshd.cluster.rest import parse_pin
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins import pinset
from meshd.pins.index import CatalogueIndex
from meshd.pins.pinset import Pinset
from meshd.pins.wiring import Pins
from tests.pins.fake_engines import FakeCluster
from tests.pins.test_pinset_reading import LIST, keep, names


async def name_of(read: Pinset, cid: str) -> str | None:
    pin = await read.query(partial(CatalogueIndex.get, cid=cid))
    return pin.name if pin is not None else None


def renamed(cluster: FakeCluster, cid: str, name: str) -> Pin:
    """As its record says from now on."""
    cluster.records[cid] = cluster.records[cid] | {"name": name}
    return parse_pin(cluster.records[cid])


async def test_a_look_from_before_a_reading_does_not_undo_what_the_list_says(
    pins: Pins, cluster: FakeCluster
) -> None:
    cid = keep(cluster, "old")
    await pins.pinset.refresh()
    await pins.pinset.look(cid)
    renamed(cluster, cid, "new")
    await pins.pinset.refresh()
    assert await name_of(pins.pinset, cid) == "new"
    assert pins.pinset._looks == {}, "and is not kept in mind"


async def test_nor_does_one_whose_answer_comes_while_the_list_is_read(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = keep(cluster, "old")
    await pins.pinset.refresh()
    before = parse_pin(cluster.records[cid])
    asked = asyncio.get_running_loop().time()
    taken, go = asyncio.Event(), asyncio.Event()
    change = pins.pinset._change

    async def and_wait(*arguments: Any) -> None:
        await change(*arguments)
        taken.set()
        await go.wait()

    monkeypatch.setattr(pins.pinset, "_change", and_wait)
    renamed(cluster, cid, "new")
    reading = asyncio.create_task(pins.pinset.refresh())
    await taken.wait()
    pins.pinset._seen(cid, before, asked)
    assert await name_of(pins.pinset, cid) == "new"
    go.set()
    await reading
    assert await name_of(pins.pinset, cid) == "new"


async def test_what_was_looked_at_while_the_list_is_read_is_not_undone_by_it(
    pins: Pins, cluster: FakeCluster
) -> None:
    """Also where somebody asked for it meanwhile."""
    changed, gone = keep(cluster, "old"), keep(cluster, "gone")
    await pins.pinset.refresh()
    new: list[str] = []

    async def meanwhile() -> None:
        renamed(cluster, changed, "new")
        del cluster.records[gone]
        new.append(keep(cluster, "pinned"))
        for cid in (changed, gone, *new):
            await pins.pinset.look(cid)
        await pins.pinset.query(CatalogueIndex.sums)

    cluster.listed = meanwhile
    await pins.pinset.refresh()
    found = [await name_of(pins.pinset, cid) for cid in (changed, gone, *new)]
    assert found == ["new", None, "pinned"]


async def test_it_counts_where_that_reading_fails(pins: Pins, cluster: FakeCluster) -> None:
    cid = keep(cluster, "old")
    await pins.pinset.refresh()
    asked = asyncio.get_running_loop().time()
    hold = cluster.hold(LIST)
    reading = asyncio.create_task(pins.pinset.refresh())
    await cluster.began[LIST].wait()
    pins.pinset._seen(cid, renamed(cluster, cid, "looked at"), asked)
    cluster.fails = {LIST: "it fails"}
    hold.set()
    with pytest.raises(MeshError):
        await reading
    assert await name_of(pins.pinset, cid) == "looked at"


async def test_of_two_looks_the_one_that_was_asked_for_later_counts(pins: Pins, cluster: FakeCluster) -> None:
    cid = keep(cluster, "first")
    await pins.pinset.refresh()
    first, now = parse_pin(cluster.records[cid]), asyncio.get_running_loop().time()
    pins.pinset._seen(cid, renamed(cluster, cid, "second"), now + 2)
    pins.pinset._seen(cid, first, now + 1)
    assert await name_of(pins.pinset, cid) == "second"


async def test_looks_are_not_kept_for_ever(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinset, "_LOOKS_MOST", 3)
    monkeypatch.setattr(pinset, "_LATE_S", -1.0)
    await pins.pinset.refresh()
    for n in range(5):
        await pins.pinset.look(keep(cluster, f"name {n}"))
    assert (await pins.pinset.query(CatalogueIndex.sums)).entries == 5
    assert pins.pinset._looks == {}


async def test_whether_anything_changed_is_told(pins: Pins, cluster: FakeCluster) -> None:
    cid = keep(cluster, "a")
    versions = []
    for step in ("come", "nothing", "look", "nothing"):
        if step == "look":
            await pins.pinset.look(keep(cluster, "b"))
        else:
            await pins.pinset.look(cid)
        await pins.pinset.query(CatalogueIndex.sums)
        await pins.pinset.refresh(anew=True)
        versions.append(pins.pinset.version)
    assert versions[0] > 0
    assert versions[1] == versions[0] < versions[2]


async def test_it_is_told_of_the_part_of_a_list_that_broke_off(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next reading finds nothing new: the sweep would not see what was put back."""
    monkeypatch.setattr("meshd.pins.reading.PART", 1)
    await pins.pinset.refresh()
    before = pins.pinset.version
    keep(cluster, "a")
    cluster.records["torn"] = {"no": "record"}
    with pytest.raises(KeyError):
        await pins.pinset.refresh()
    del cluster.records["torn"]
    await pins.pinset.refresh()
    assert names(await pins.catalogue.page()) == ["a"]
    assert pins.pinset.version > before


async def test_an_index_that_fails_is_made_anew_and_the_answer_is_right(
    pins: Pins, cluster: FakeCluster, tmp_path: Path
) -> None:
    keep(cluster, "a")
    assert names(await pins.catalogue.page()) == ["a"]
    assert (tmp_path / "state" / "catalogue.db").exists()
    failed: list[None] = []

    def question(index: CatalogueIndex) -> int:
        if not failed:
            failed.append(index.run(fail))
        return index.sums().entries

    def fail(sql: sqlite3.Connection) -> None:
        failed.append(None)
        raise sqlite3.DatabaseError("database disk image is malformed")

    assert await pins.pinset.query(question) == 1
    assert failed
    assert names(await pins.catalogue.page()) == ["a"]


async def test_one_that_failed_while_the_cluster_was_away_is_not_taken_for_empty(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinset, "allowed_age", lambda count, took_s: 3600.0)
    keep(cluster, "a")
    await pins.pinset.refresh()

    def fail(sql: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    cluster.fails = {LIST: "it fails"}
    with pytest.raises(MeshError):
        await pins.pinset.query(lambda index: index.run(fail))
    cluster.fails = {}
    assert names(await pins.catalogue.page()) == ["a"]


async def test_one_that_fails_in_the_middle_of_a_reading_is_made_anew(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.pins.reading.PART", 2)
    cids = [keep(cluster, f"name {n}") for n in range(9)]
    await pins.pinset.refresh()
    run, count = pins.pinset._index.run, 0

    def failing(work: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            return run(fail)
        return run(work)

    def fail(sql: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(pins.pinset._index, "run", failing)
    await pins.pinset.refresh(anew=True)
    assert count > 3
    assert await pins.pinset.query(partial(CatalogueIndex.among, cids=cids)) == set(cids)


async def test_one_that_a_query_made_anew_in_the_middle_of_a_reading_is_not_taken_for_whole(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of its rows begin anew, too, so their count alone does not tell."""
    monkeypatch.setattr("meshd.pins.reading.PART", 3)
    cids = [keep(cluster, f"name {n}") for n in range(9)]
    asked: list[asyncio.Task[int]] = []
    lost, seen, take = pins.pinset._lost, asyncio.Event(), pins.pinset._change

    async def and_fail_once(*arguments: Any) -> None:
        await take(*arguments)
        if not asked:
            asked.append(asyncio.create_task(pins.pinset.query(fail_once)))
            await seen.wait()

    def and_tell(why: db.Discarded) -> None:
        lost(why)
        seen.set()

    def fail_once(index: CatalogueIndex) -> int:
        return index.sums().entries if seen.is_set() else index.run(fail)

    def fail(sql: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(pins.pinset, "_lost", and_tell)
    monkeypatch.setattr(pins.pinset, "_change", and_fail_once)
    await pins.pinset.refresh()
    assert await pins.pinset.query(partial(CatalogueIndex.among, cids=cids)) == set(cids)
    assert await asked[0] == 9


async def test_one_that_fails_again_and_again_is_told(pins: Pins, cluster: FakeCluster) -> None:
    def fail(sql: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    await pins.pinset.refresh()
    with pytest.raises(MeshError) as caught:
        await pins.pinset.query(lambda index: index.run(fail))
    assert caught.value.code is Code.BAD_STATE
    assert await pins.catalogue.count() == 0, "and the next question is answered"


async def test_who_is_cut_off_does_not_leave_a_change_behind_that_comes_too_late(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was begun goes on: the next change waits for it."""
    cid = keep(cluster, "a")
    await pins.pinset.refresh()
    loop = asyncio.get_running_loop()
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def slowly(index: CatalogueIndex) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        index.apply({cid: parse_pin(cluster.records[cid] | {"name": "old"})})
        loop.call_soon_threadsafe(done.set)

    first = asyncio.create_task(pins.pinset.query(slowly))
    await begun.wait()
    first.cancel()
    pins.pinset._seen(cid, renamed(cluster, cid, "new"), loop.time())
    second = asyncio.create_task(name_of(pins.pinset, cid))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(second, done.wait())
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await name_of(pins.pinset, cid) == "new"


async def test_all_parts_have_each_entry_that_stays_once_whatever_comes_and_goes(
    pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.pins.pinset.PART", 1)
    staying = {keep(cluster, f"stays {n}") for n in range(20)}
    await pins.pinset.refresh()
    seen: list[str] = []
    async for part in pins.pinset.each_part():
        seen += [p.cid for p in part]
        goes = keep(cluster, f"comes {len(seen)}")
        await pins.pinset.look(goes)
        del cluster.records[goes]
        await pins.pinset.look(goes)
    assert [cid for cid in seen if cid in staying] == sorted(staying)
