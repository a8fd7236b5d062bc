"""The wait for durable replicas: whose word counts, who is given up and when, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import copies, timeouts
from meshd.pins.copies import Copies
from meshd.pins.nodes import Nodes
from meshd.pins.storage import Storage
from meshd.pins.wait import Kept, Waiter, silent
from meshd.wire import verbs
from tests.pins.fake_engines import FakeCluster
from tests.pins.told import Told
from tests.unit.draining import World
from tests.waiting import until

SOON_S = 30.0  # on a busy machine


class Mesh:
    """attic, barn and cellar; what each says of the entry, or nothing where it is silent."""

    def __init__(self, folder: Path, world: World) -> None:
        self.host = world.nodes["attic"]
        self.says: dict[str, Any] = dict.fromkeys(world.nodes, "fetching")
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.copies = Answers(self, self.host.store)
        storage = Storage(folder, reserve=0, offer=None)
        self.states = {s.name: s for s in self.host.peer_states()}
        cluster = FakeCluster(folder / "cluster.sock")
        self.nodes = Nodes(cluster, self.host.store, storage, lambda: self.states.values())
        self.waiter = Waiter(self.copies, self.nodes)

    def member(self, name: str) -> wire.Member:
        return next(m for m in self.host.store.members() if m.name == name)

    async def answer(self, name: str, cids: Sequence[str]) -> wire.Confirmed:
        self.asked.append(name)
        if name in self.silent:
            raise MeshError(Code.PEER_UNREACHABLE, f"cannot reach {name}", "no route to host")
        return wire.Confirmed(states=dict.fromkeys(cids, self.says[name]))

    async def call(self, member: wire.Member, verb: object, asked: wire.ConfirmRequest) -> wire.Confirmed:
        """As a peer answers which of these it holds."""
        assert verb is verbs.CONFIRM
        return await self.answer(member.name, asked.cids)

    def waiting(self, *on: str, told: Told | None = None, **options: Any) -> asyncio.Task[Kept]:
        """A wait for an entry on these nodes."""
        pin = Pin("c1", "minutes", "f", "r1", 50, 1.0, 2, allocations=tuple(f"cluster{n}" for n in on))
        return asyncio.create_task(self.waiter.wait(pin, told or Told(), **options))

    async def asked_again(self, *names: str) -> None:
        """Each of them was asked after now, and what it said was looked at."""
        for _ in range(2):
            self.asked.clear()
            await until(lambda: set(names) <= set(self.asked))


class Answers(Copies):
    """As the others answer."""

    def __init__(self, mesh: Mesh, store: MeshStore) -> None:
        super().__init__(mesh, store, mesh)  # type: ignore[arg-type]  # it is this node's gate and its line to the others
        self._mesh = mesh

    async def local(self, cids: Sequence[str]) -> wire.Confirmed:
        return await self._mesh.answer("attic", cids)


@pytest.fixture
async def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    monkeypatch.setattr(copies, "LONGEST_PAUSE", copies.FIRST_PAUSE)  # they are asked often
    made = Mesh(tmp_path, await World(tmp_path).build("attic", "barn", "cellar"))
    yield made
    await made.copies.stop()


def names(kept: Kept) -> list[str]:
    return sorted(m.name for m in kept.held)


def whys(mesh: Mesh, kept: Kept) -> dict[str, str]:
    by = {m.fingerprint: m.name for m in mesh.host.store.members()}
    return {by[f]: c.state for f, c in kept.missing.items()}


# -- whose word counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["fetching", "missing"])
async def test_only_who_says_that_it_holds_it_is_counted(mesh: Mesh, state: str) -> None:
    mesh.says |= {"attic": "held", "barn": state}
    waiting = mesh.waiting("attic", "barn")
    await mesh.asked_again("barn")
    assert not waiting.done(), "barn does not hold it yet"
    mesh.says["barn"] = "held"
    assert names(await waiting) == ["attic", "barn"]


async def test_those_that_were_not_chosen_are_not_asked(mesh: Mesh) -> None:
    mesh.says |= {"attic": "held", "barn": "held", "cellar": "refused"}
    kept = await mesh.waiting("attic", "barn")
    assert (names(kept), kept.missing) == (["attic", "barn"], {})
    assert "cellar" not in mesh.asked


async def test_what_everybody_shall_hold_is_asked_of_everybody(mesh: Mesh) -> None:
    mesh.says |= dict.fromkeys(mesh.says, "held")
    assert names(await mesh.waiting()) == ["attic", "barn", "cellar"]


async def test_who_is_known_to_hold_it_counts_and_is_not_asked_again(mesh: Mesh) -> None:
    mesh.says["cellar"] = "held"
    told = Told()
    kept = await mesh.waiting("attic", "cellar", told=told, held=[mesh.member("attic")])
    assert names(kept) == ["attic", "cellar"]
    assert set(mesh.asked) == {"cellar"}
    assert [(e.node, e.held) for e in told.events if isinstance(e, wire.CopyEvent)] == [("cellar", 2)]


async def test_some_of_them_can_be_waited_for_alone(mesh: Mesh) -> None:
    mesh.says["barn"] = "held"
    kept = await mesh.waiting("attic", "barn", among=[mesh.member("barn")])
    assert names(kept) == ["barn"]
    assert set(mesh.asked) == {"barn"}


# -- who is given up -----------------------------------------------------------------------------------------------


async def test_who_refuses_is_not_waited_for_and_is_told_as_missing(mesh: Mesh) -> None:
    mesh.says |= {"attic": "held", "barn": "refused"}
    kept = await mesh.waiting("attic", "barn")
    assert (names(kept), whys(mesh, kept)) == (["attic"], {"barn": "refused"})


async def test_who_is_silent_is_given_up_after_a_while_and_not_before(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh.says["attic"] = "held"
    mesh.silent = {"barn"}
    waiting = mesh.waiting("attic", "barn")
    await mesh.asked_again("barn")
    assert not waiting.done()
    monkeypatch.setattr(timeouts, "SILENT_S", 0.0)
    kept = await waiting
    assert (names(kept), whys(mesh, kept)) == (["attic"], {"barn": "unknown"})


async def test_who_is_away_is_given_up_sooner(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "AWAY_S", 0.0)
    monkeypatch.setattr(timeouts, "SILENT_S", 3600.0)
    mesh.says["attic"] = "held"
    mesh.silent = {"barn"}
    waiting = mesh.waiting("attic", "barn")
    await mesh.asked_again("barn")
    assert not waiting.done(), "the beat still reaches it"
    mesh.states["barn"] = dataclasses.replace(mesh.states["barn"], reachable=False)
    assert whys(mesh, await asyncio.wait_for(waiting, SOON_S)) == {"barn": "unknown"}


async def test_one_that_was_forgotten_since_is_given_up_sooner(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "AWAY_S", 0.0)
    monkeypatch.setattr(timeouts, "SILENT_S", 3600.0)
    mesh.says["attic"] = "held"
    mesh.silent = {"barn"}
    waiting = mesh.waiting("attic", "barn")
    await mesh.asked_again("barn")
    await mesh.host.store.forget(mesh.member("barn").fingerprint, by=mesh.host.fingerprint)
    kept = await asyncio.wait_for(waiting, SOON_S)
    assert (names(kept), [c.state for c in kept.missing.values()]) == (["attic"], ["unknown"])


async def test_one_that_is_given_up_does_not_end_the_wait_for_the_others(mesh: Mesh) -> None:
    mesh.says |= {"attic": "held", "barn": "refused"}
    waiting = mesh.waiting("attic", "barn", "cellar")
    await mesh.asked_again("cellar")
    assert not waiting.done()
    mesh.says["cellar"] = "held"
    kept = await waiting
    assert (names(kept), whys(mesh, kept)) == (["attic", "cellar"], {"barn": "refused"})


# -- what is told --------------------------------------------------------------------------------------------------


async def told_of_copies(told: Told, count: int) -> None:
    await until(lambda: len(told.of(wire.CopyEvent)) == count)


async def test_each_copy_is_told_once_and_counted(mesh: Mesh) -> None:
    told = Told()
    waiting = mesh.waiting("attic", "barn", "cellar", told=told)
    for count, name in enumerate(("cellar", "attic", "barn"), 1):
        mesh.says[name] = "held"
        await told_of_copies(told, count)
    await waiting
    copied = [e for e in told.events if isinstance(e, wire.CopyEvent)]
    assert [(e.node, e.held, e.wanted) for e in copied] == [("cellar", 1, 2), ("attic", 2, 2), ("barn", 3, 2)]


async def test_who_waits_for_long_is_told_of_whom_once(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timeouts.SAY_AFTER_S, "unknown", 0.0)
    mesh.says["attic"] = "held"
    mesh.silent = {"barn"}
    told = Told()
    waiting = mesh.waiting("attic", "barn", told=told)
    await until(lambda: told.of(wire.StepEvent))
    await mesh.asked_again("barn")
    mesh.silent, mesh.says["barn"] = set(), "held"
    await waiting
    said = [e.message for e in told.events if isinstance(e, wire.StepEvent)]
    assert said.count("waiting for barn, which does not answer") == 1


async def test_a_wait_that_is_cut_off_asks_nobody_any_longer(mesh: Mesh) -> None:
    waiting = mesh.waiting("attic", "barn")
    await mesh.asked_again("attic", "barn")
    waiting.cancel()
    await asyncio.wait([waiting])
    await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("ask-")])


async def test_where_nobody_listens_the_copies_are_seen_all_the_same(mesh: Mesh) -> None:
    mesh.says["barn"] = "held"
    pin = Pin("c1", "minutes", "f", "r1", 50, 1.0, 1, allocations=("clusterbarn",))
    assert names(await mesh.waiter.wait(pin, silent)) == ["barn"]
