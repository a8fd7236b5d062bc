"""A sweep of much: it looks through kubo less often, forgets nothing in between, and asks nothing whose answer it has."""

from __future__ import annotations

import dataclasses

import pytest

from meshd.errors import MeshError
from meshd.pins import sweep
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic

LOOK = "pin/ls"


@pytest.fixture
def much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is pinned here counts as much, and was just looked through."""
    monkeypatch.setattr(sweep, "SMALL", 0)
    monkeypatch.setattr(sweep, "_LOOK_SHARE", 1e-9)


def looks(attic: Attic) -> int:
    """How often kubo was asked for all that it has pinned."""
    return attic.fake_kubo.asked.count(LOOK)


async def test_where_there_is_little_each_sweep_looks_through_it(attic: Attic, barn: Node) -> None:
    attic.entry(attic.node, barn)
    for _ in range(2):
        await attic.pins.sweeper.sweep()
    assert looks(attic) == 2


@pytest.mark.usefixtures("much")
async def test_where_there_is_much_it_is_not_looked_through_each_time(attic: Attic, barn: Node) -> None:
    attic.entry(attic.node, barn)
    for _ in range(3):
        await attic.pins.sweeper.sweep()
    assert looks(attic) == 1


@pytest.mark.usefixtures("much")
async def test_what_moved_is_remembered_until_it_may_go(attic: Attic, barn: Node, cellar: Node) -> None:
    pin = attic.entry(barn, cellar)
    cellar.holder.held.clear()
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)
    cellar.holder.held.add(pin.cid)
    await attic.pins.sweeper.sweep()
    assert not attic.has(pin)
    assert list(attic.pins.sweeper._moved) == []


@pytest.mark.usefixtures("much")
async def test_what_came_back_here_is_remembered_no_longer(attic: Attic, barn: Node, cellar: Node) -> None:
    pin = attic.entry(barn, cellar)
    cellar.holder.held.clear()
    await attic.pins.sweeper.sweep()
    attic.keep(dataclasses.replace(pin, allocations=("clusterattic", "clusterbarn")))
    cellar.holder.held.add(pin.cid)
    await attic.pins.sweeper.sweep()
    assert attic.has(pin)
    assert list(attic.pins.sweeper._moved) == []


async def test_those_that_must_stay_do_not_keep_the_others_from_going(
    attic: Attic, barn: Node, cellar: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_MOVED_AT_ONCE", 2)
    pins = [attic.entry(barn, cellar) for _ in range(6)]
    await attic.pins.sweeper.sweep()
    for pin in [p for p in pins if attic.has(p)][:2]:
        cellar.holder.held.discard(pin.cid)
    for _ in range(5):
        await attic.pins.sweeper.sweep()
    assert sum(attic.has(pin) for pin in pins) == 2


@pytest.mark.usefixtures("much")
async def test_an_upload_that_could_not_be_unpinned_is_looked_for_again(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    attic.pins.pending.left.add(pin.cid)
    attic.fake_kubo.away = {"pin/rm"}
    with pytest.raises(MeshError):
        await attic.pins.sweeper.sweep()
    attic.fake_kubo.away = set()
    await attic.pins.sweeper.sweep()
    assert looks(attic) == 2
    assert not attic.has(pin)


async def test_what_was_removed_is_looked_for_in_the_list_only_when_either_changed(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = attic.entry(attic.node, barn, kept=False)
    await attic.pins.journal.record([attic.removal(gone)])
    asked: list[int] = []
    cids = attic.pins.journal.cids

    def counting() -> list[str]:
        asked.append(1)
        return cids()

    monkeypatch.setattr(attic.pins.journal, "cids", counting)
    for _ in range(3):
        await attic.pins.sweeper.sweep()
    assert len(asked) == 1
    attic.entry(attic.node, barn)
    await attic.pins.sweeper.sweep()
    assert len(asked) == 2
    attic.keep(gone)
    await attic.pins.sweeper.sweep()
    assert attic.says(gone) == "", "it was put back"


async def test_what_others_own_here_is_counted_and_what_is_on_its_way_once(attic: Attic, barn: Node) -> None:
    attic.entry(attic.node, barn, size=7)
    foreign = attic.entry(attic.node, barn, owner=barn.fingerprint, size=30)
    attic.entry(wanted="all", owner=barn.fingerprint, size=500)
    attic.entry(barn, owner=barn.fingerprint, size=4000, here=False)
    storage = attic.pins.storage
    storage.expect(foreign.cid, 30)
    storage.expect("another", 60_000)
    fetching = attic.pins.sweeper._fetching
    assert isinstance(fetching, dict)
    fetching["another"] = fetching[foreign.cid] = None
    await attic.pins.sweeper.sweep()
    assert storage.placed == 60_530
    fetching.clear()
    await attic.pins.sweeper.sweep()
    assert storage.placed == 530
