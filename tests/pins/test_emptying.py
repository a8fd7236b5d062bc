"""Emptying the trash: each entry is looked at just before it goes, and that many went is one record."""

from __future__ import annotations

import asyncio

import pytest

from meshd import db
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import trash
from meshd.pins.wiring import Pins
from tests.pins.fake_engines import FakeCluster, FakeKubo, cid_of, record_of
from tests.waiting import until

COUNT = 250


async def due(pins: Pins, kubo: FakeKubo, store: MeshStore) -> list[str]:
    """Entries that are pinned here and whose time in the trash is over, the oldest first."""
    cids = [cid_of(f"{n}".encode()) for n in range(COUNT)]
    kubo.names |= dict.fromkeys(cids, "a name")
    removed = [Pin(cid, "a name", store.fingerprint, "r", 5, 1.0, 3) for cid in cids]
    await pins.journal.record([trash.removal_of(p, store.fingerprint) for p in removed])
    await until(lambda: all(t.age_s > 1.0 for t in pins.journal.lying()))
    return cids


async def test_many_that_are_due_go_with_a_few_records(
    pins: Pins, kubo: FakeKubo, store: MeshStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await due(pins, kubo, store)
    written = []
    write = db.Database.write

    def counting(self: db.Database, changes: list[db.Change], doing: str) -> bool:
        written.append(changes)
        return write(self, changes, doing)

    monkeypatch.setattr(db.Database, "write", counting)
    await pins.sweeper.sweep()
    assert kubo.names == {}
    assert pins.journal.all() == []
    assert len(written) <= 5
    rows = [row for changes in written for _, each in changes for row in each]
    assert COUNT <= len(rows) <= COUNT + 10


async def test_what_is_put_back_meanwhile_stays(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, store: MeshStore
) -> None:
    """The last but one is put back while the first ones go: it is looked at when its turn has come."""
    cids = await due(pins, kubo, store)
    hold = kubo.hold("pin/rm")
    sweeping = asyncio.create_task(pins.sweeper.sweep())
    await kubo.began["pin/rm"].wait()
    cluster.records[cids[-2]] = record_of(cids[-2], {"name": "a name"})
    hold.set()
    await sweeping
    assert list(kubo.names) == [cids[-2]]


async def test_those_that_went_before_kubo_went_away_are_recorded(
    pins: Pins, kubo: FakeKubo, cluster: FakeCluster, store: MeshStore
) -> None:
    cids = await due(pins, kubo, store)
    cluster.fails_for.add(cids[50])
    with pytest.raises(MeshError):
        await pins.sweeper.sweep()
    assert {r.cid for r in pins.journal.all()} == set(kubo.names) == set(cids[50:])
