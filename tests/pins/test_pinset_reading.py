"""One reader of the pinset: few readings, and yet nobody is told what is no longer so where that matters."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.cluster.datastore import Datastore
from meshd.cluster.rest import Cluster, ListCutShortError, parse_pin
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.pins import entries, pinset
from meshd.pins.index import CatalogueIndex, Search
from meshd.pins.pinset import Pinset, allowed_age
from meshd.pins.wiring import Pins
from tests.pins.conftest import CLUSTER_ID, CONTENT
from tests.pins.fake_engines import FakeCluster, FakeKubo, cid_of, record_of
from tests.pins.told import Told

LIST = "GET allocations"


def record(
    name: str, *, number: int = 0, root: str = "r", owner: str = "f1", when: float = 1.0
) -> dict[str, Any]:
    asked = {"name": name, "meta-root": root, "meta-owner": owner, "meta-time": repr(when), "meta-size": "5"}
    asked |= {"meta-wanted": "3", "user-allocations": CLUSTER_ID}
    return record_of(cid_of(f"{name}-{number}-{when}".encode()), asked)


def keep(cluster: FakeCluster, name: str, **facts: Any) -> str:
    """Another node pins it; its CID."""
    made = record(name, **facts)
    cluster.records[made["cid"]] = made
    return str(made["cid"])


def names(page: wire.Entries) -> list[str]:
    return [e.name for e in page.entries]


@pytest.fixture
def large(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ten entries of a list that counts as large: what was read may be an hour old. Their CIDs."""
    monkeypatch.setattr(pinset, "allowed_age", lambda count, took_s: 3600.0)
    return [keep(cluster, f"name-{n}") for n in range(10)]


# -- a list that ends too early ------------------------------------------------------------------------------------


def stop_in_the_middle(cluster: FakeCluster, *, left: int) -> None:
    """The cluster is stopped during the next reading, and started again at once: all of the list that comes is `left`."""
    everything = dict(cluster.records)

    async def stop() -> None:
        cluster.records = everything
        os.utime(cluster.socket)  # as of a new socket

    cluster.records = dict(list(everything.items())[:left])
    cluster.listed = stop


@pytest.mark.parametrize("left", [0, 2])
async def test_a_list_of_a_cluster_that_is_stopped_meanwhile_is_not_taken_for_the_whole(
    left: int, pins: Pins, cluster: FakeCluster
) -> None:
    """It answers 200 and ends in the middle, or 204: a node that leaves would take nothing along."""
    cids = {keep(cluster, f"name {n}") for n in range(5)}
    await pins.pinset.refresh()
    stop_in_the_middle(cluster, left=left)
    await pins.pinset.reread()
    assert await pins.pinset.query(partial(CatalogueIndex.among, cids=cids)) == cids


@pytest.mark.parametrize("seen", [[None], [(0, 0, 1), (0, 0, 2)]], ids=["gone", "new"])
async def test_one_that_is_cut_short_each_time_is_told(
    seen: list[object], pins: Pins, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cluster, "a")
    await pins.pinset.refresh()
    sockets = itertools.cycle(seen)
    monkeypatch.setattr(Cluster, "_socket_file", lambda self: next(sockets))
    with pytest.raises(ListCutShortError):
        await pins.pinset.reread()


# -- how often it is read ------------------------------------------------------------------------------------------


def test_a_small_list_is_read_each_time_and_reading_a_large_one_takes_a_tenth_of_the_time() -> None:
    assert allowed_age(1000, 0.5) == 0.0
    assert allowed_age(1001, 0.1) == pytest.approx(1.0)
    assert allowed_age(100_000, 3.0) == 10.0


async def test_in_a_small_list_what_another_node_did_is_seen_at_once(
    pins: Pins, cluster: FakeCluster
) -> None:
    keep(cluster, "a")
    assert names(await pins.catalogue.page()) == ["a"]
    keep(cluster, "b")
    assert names(await pins.catalogue.page()) == ["a", "b"]
    cluster.records.clear()
    assert names(await pins.catalogue.page()) == []


async def test_all_who_ask_about_a_large_list_share_one_reading(
    pins: Pins, cluster: FakeCluster, large: list[str]
) -> None:
    for _ in range(3):
        await pins.catalogue.page(limit=2)
        await pins.catalogue.page(name="name-3")
        await pins.catalogue.find("name-4")
        await pins.catalogue.find(large[5])
        await pins.catalogue.count()
        await pins.rebalancer.turn()
    assert cluster.asked.count(LIST) == 1


async def test_many_at_once_share_the_reading_that_is_under_way_or_the_next_one(
    pins: Pins, cluster: FakeCluster
) -> None:
    hold = cluster.hold(LIST)
    keep(cluster, "a")
    first = asyncio.create_task(pins.catalogue.page())
    await cluster.began[LIST].wait()
    later = [asyncio.create_task(pins.catalogue.page()) for _ in range(20)]
    given_up = later.pop()
    await asyncio.sleep(0)
    given_up.cancel()
    hold.set()
    for page in await asyncio.gather(first, *later):
        assert names(page) == ["a"]
    assert cluster.asked.count(LIST) == 2, "those that came later need one that began later"


class EndsAsAnotherComes(Cluster):
    """A list without entries; at the very end of its first reading somebody else begins to ask."""

    other: asyncio.Task[bool] | None = None
    readings = 0

    async def records(self) -> AsyncGenerator[bytes, None]:
        self.readings += 1
        if self.other is None:
            self.other = asyncio.create_task(self.pinset.refresh())
        for line in list[bytes]():
            yield line

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.pinset = Pinset(self, Datastore(socket.parent), None)


@pytest.mark.timeout(20)
async def test_who_comes_as_a_reading_ends_begins_the_next_one(tmp_path: Path) -> None:
    """The one that ended is not awaited again and again."""
    cluster = EndsAsAnotherComes(tmp_path / "none")
    await cluster.pinset.refresh()
    assert cluster.other is not None
    await cluster.other
    assert cluster.readings == 2


async def test_a_reading_that_fails_is_told_to_all_and_the_next_one_works(
    pins: Pins, cluster: FakeCluster
) -> None:
    cluster.fails = {LIST: "it fails"}
    for answer in await asyncio.gather(*(pins.pinset.refresh() for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, MeshError)
        assert answer.code is Code.ENGINE_FAILED
    cluster.fails.clear()
    assert await pins.pinset.refresh()
    assert await pins.catalogue.count() == 0


async def test_a_reading_takes_over_what_changed(pins: Pins, cluster: FakeCluster) -> None:
    """More than is put into the old list one by one, and less."""
    for count in (300, 5, 1, 0, 400):
        for n in range(count):
            keep(cluster, f"{count}-{n}", number=n)
        for cid in list(cluster.records)[: count // 2]:
            del cluster.records[cid]
        for cid in list(cluster.records)[: count // 3]:
            cluster.records[cid]["allocations"] = ["another"]
        await matches(pins.pinset, cluster)


async def matches(read: Pinset, cluster: FakeCluster) -> None:
    pins = [parse_pin(r) for r in cluster.records.values()]
    await read.refresh()
    page = await read.query(partial(CatalogueIndex.page, search=Search(), limit=1000))
    assert (page.entries, page.total) == (entries.number(pins), len(pins))
    sums = await read.query(partial(CatalogueIndex.sums, cluster_id=CLUSTER_ID))
    assert (sums.size, sums.entries) == (sum(p.size for p in pins), len(pins))
    assert sums.here == sum(not p.allocations or CLUSTER_ID in p.allocations for p in pins)


# -- what was done here is seen at once ----------------------------------------------------------------------------


async def test_what_was_pinned_here_is_listed_at_once_and_what_was_removed_is_not(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, large: list[str], told: Told
) -> None:
    await pins.catalogue.page()
    await pins.pinner.existing(CONTENT, "a-new-one", 1, told)
    page = await pins.catalogue.page()
    assert names(page)[0] == "a-new-one"
    sums = await pins.pinset.ask(partial(CatalogueIndex.sums, cluster_id=CLUSTER_ID))
    assert (sums.entries, sums.here) == (11, 11)
    assert cluster.asked.count(LIST) == 1
    await pins.remover.remove(page.entries[0].cid)
    assert "a-new-one" not in names(await pins.catalogue.page())
    assert cluster.asked.count(LIST) == 1


async def test_what_was_pinned_here_while_the_list_was_being_read_is_listed(
    pins: Pins, cluster: FakeCluster, large: list[str], told: Told
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def read_and_not_yet_answered() -> None:
        begun.set()
        await go.wait()

    cluster.listed = read_and_not_yet_answered
    reading = asyncio.create_task(pins.catalogue.page())
    await begun.wait()
    await pins.pinner.existing(CONTENT, "a-new-one", 1, told)
    go.set()
    assert names(await reading)[0] == "a-new-one"


# -- what deletes does not go by what is old -----------------------------------------------------------------------


async def test_what_another_node_pinned_since_is_found(
    pins: Pins, cluster: FakeCluster, large: list[str]
) -> None:
    await pins.catalogue.page()
    cid = keep(cluster, "fresh")
    assert (await pins.catalogue.find("fresh")).pin.cid == cid
    assert (await pins.catalogue.find(cid)).pin.name == "fresh"


async def test_what_another_node_removed_since_is_not_found(
    pins: Pins, cluster: FakeCluster, large: list[str]
) -> None:
    await pins.catalogue.page()
    del cluster.records[large[3]]
    for reference in ("name-3", large[3]):
        with pytest.raises(MeshError) as caught:
            await pins.catalogue.find(reference)
        assert caught.value.code is Code.NOT_FOUND


async def test_rm_by_name_removes_the_newest_as_it_is_now(
    pins: Pins, cluster: FakeCluster, large: list[str]
) -> None:
    """Another node pinned a newer one after the list was read: the older one must not go in its place."""
    await pins.catalogue.page()
    newer = keep(cluster, "name-3", when=2.0)
    await pins.remover.remove("name-3", force=True)
    assert large[3] in cluster.records
    assert newer not in cluster.records


async def test_the_last_entry_of_a_content_is_known_as_such_although_the_list_has_another(
    pins: Pins, cluster: FakeCluster, store: MeshStore, large: list[str]
) -> None:
    one = keep(cluster, "one", root="same", owner=store.fingerprint)
    other = keep(cluster, "other", root="same", owner=store.fingerprint)
    await pins.catalogue.page()
    del cluster.records[other]  # by another node
    with pytest.raises(MeshError) as caught:
        await pins.remover.remove(one, now=True)
    assert caught.value.code is Code.LAST_COPY
    assert one in cluster.records


async def test_a_sweep_sees_what_was_put_back_since(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, large: list[str]
) -> None:
    await pins.catalogue.page()
    cid = keep(cluster, "back")
    kubo.names[cid] = "back"
    await pins.journal.record([wire.Removal(cid=cid, time=time.time(), by="f1")])
    await pins.sweeper.sweep()
    assert pins.journal.all() == []
    assert cid in kubo.names


# -- pages ---------------------------------------------------------------------------------------------------------


async def test_the_next_page_goes_on_where_its_predecessor_ended_also_when_that_entry_was_removed(
    pins: Pins, cluster: FakeCluster
) -> None:
    for n in range(7):
        keep(cluster, f"name-{n}")
    seen, after = [], ""
    while True:
        page = await pins.catalogue.page(limit=2, after=after)
        seen += names(page)
        assert len(seen) <= 7, "it began anew"
        if page.next is None:
            break
        after = page.next
        del cluster.records[page.entries[-1].cid]
    assert seen == [f"name-{n}" for n in range(7)]


@pytest.mark.parametrize(
    "query", [{"name": "A-NAME"}, {"owner": "attic"}, {"name": "name", "owner": "attic"}]
)
async def test_pages_of_a_selection_go_on_too(
    query: Any, pins: Pins, cluster: FakeCluster, store: MeshStore
) -> None:
    for n in range(5):
        keep(cluster, "a-name", owner=store.fingerprint, when=float(n))
        keep(cluster, f"other-{n}")
    page = await pins.catalogue.page(limit=3, **query)
    assert (page.total, [e.version for e in page.entries]) == (5, [1, 2, 3])
    assert page.next
    del cluster.records[page.entries[-1].cid]
    page = await pins.catalogue.page(limit=3, after=page.next, **query)
    assert (page.total, [e.version for e in page.entries], page.next) == (4, [3, 4], None)


async def test_an_older_clients_cursor_is_still_good(pins: Pins, cluster: FakeCluster) -> None:
    cids = [keep(cluster, f"name-{n}") for n in range(4)]
    assert names(await pins.catalogue.page(after=cids[1])) == ["name-2", "name-3"]


TOO_LARGE = base64.urlsafe_b64encode(b'["x",1%b,"y"]' % (b"0" * 400)).decode()


@pytest.mark.parametrize(
    "after", ["x", "W10=", "bnVsbA==", cid_of(b"unknown"), "é", "W1tdLCJ4IiwxXQ==", TOO_LARGE]
)
async def test_a_cursor_that_is_none_is_refused(after: str, pins: Pins, cluster: FakeCluster) -> None:
    keep(cluster, "a")
    with pytest.raises(MeshError) as caught:
        await pins.catalogue.page(after=after)
    assert caught.value.code is Code.BAD_REQUEST


async def test_names_of_owners_are_looked_up_once_for_each_owner(
    pins: Pins, cluster: FakeCluster, store: MeshStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(300):
        keep(cluster, f"name-{n}", owner=("f1", "f2", store.fingerprint, "")[n % 4])
    asked: list[str] = []
    name_of = store.name_of

    def counting(fingerprint: str) -> str:
        asked.append(fingerprint)
        return name_of(fingerprint)

    monkeypatch.setattr(store, "name_of", counting)
    page = await pins.catalogue.page(owner="attic")
    assert page.total == 75
    assert {e.owner for e in (await pins.catalogue.page()).entries} == {"f1", "f2", "attic", "unknown"}
    assert len(asked) <= 8
