"""The beat, with real nodes: who is there, who is gone, who has news."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable

import pytest

from meshd.errors import Code, MeshError
from meshd.http import problem
from meshd.mesh import roster
from meshd.model import PeerState
from meshd.wire import Heartbeat, Member, Removal, Roster, verbs
from meshd.wire.verbs import A, Q, Verb
from tests.mesh_room.nodes import Clock, Node
from tests.waiting import until

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


def _of(node: Node, other: Node) -> PeerState:
    return next(state for state in node.heartbeats.states() if state.fingerprint == other.fingerprint)


async def test_peers_see_each_other_and_lose_each_other(pair: Pair) -> None:
    attic, barn = pair
    news: list[bool] = []
    attic.heartbeats.subscribe(lambda: news.append(_of(attic, barn).reachable))
    assert not _of(attic, barn).reachable
    attic.begin_watch()
    barn.begin_watch()
    await until(lambda: _of(attic, barn).reachable and _of(barn, attic).reachable)
    state = _of(attic, barn)
    assert (state.name, state.address, state.free_bytes, state.version) == (
        "barn",
        "127.0.0.2",
        1000,
        "0.1.0",
    )
    assert state.last_seen == attic.now()
    assert state.rtt_s is not None
    assert 0 < state.rtt_s < 5
    assert state.problem == ""
    port = barn.port
    await barn.server.stop()
    await until(lambda: not _of(attic, barn).reachable)
    assert "nothing listens" in _of(attic, barn).problem
    await until(lambda: news == [True, False])
    await barn.server.start(barn.listen, port)
    await until(lambda: _of(attic, barn).reachable)
    assert _of(attic, barn).problem == ""


async def test_two_sides_that_changed_apart_agree_when_they_meet(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar, dairy = await make_node("cellar").start(), await make_node("dairy").start()
    await cellar.join(await attic.invite())
    await dairy.join(await barn.invite())
    nodes = (attic, barn, cellar, dairy)
    assert len({node.store.digest() for node in nodes}) > 1
    for node in nodes:
        node.begin_watch()
    await until(lambda: len({node.store.digest() for node in nodes}) == 1)
    assert {member.name for member in dairy.store.members()} == {"attic", "barn", "cellar", "dairy"}
    await until(lambda: all(state.reachable for node in nodes for state in node.heartbeats.states()))


async def test_a_change_travels_at_once(pair: Pair) -> None:
    attic, barn = pair
    for node in pair:
        node.heartbeats._interval = 60.0
        node.begin_watch()
    await until(lambda: _of(attic, barn).reachable and _of(barn, attic).reachable)
    await barn.store.update_self(barn.joiner(site="cellar"))
    await until(lambda: attic.view_of(barn).site == "cellar", seconds=5)
    assert _of(attic, barn).site == "cellar"


async def test_a_node_that_moved_is_followed(pair: Pair) -> None:
    attic, barn = pair
    for node in pair:
        node.begin_watch()
    await until(lambda: _of(attic, barn).reachable)
    barn.listen = barn.address = "127.0.0.3"
    await barn.start()
    await barn.store.update_self(barn.joiner())
    await until(lambda: _of(attic, barn).address == "127.0.0.3")
    before = _of(attic, barn).seen_at
    await until(lambda: _of(attic, barn).seen_at > before)


async def test_removals_are_told_until_they_were_taken(pair: Pair) -> None:
    attic, barn = pair
    calls: list[int] = []
    good = asyncio.Event()

    async def take(member: Member, count: int) -> None:
        calls.append(count)
        if not good.is_set():
            raise MeshError(Code.NOT_READY, "cannot take them yet")

    attic.heartbeats._on_removals = take
    barn.holder.recorded = [Removal(cid="x", time=1.0, by="")]
    attic.begin_watch()
    await until(lambda: len(calls) >= 2)
    good.set()
    known = attic.heartbeats._monitored[barn.fingerprint]
    await until(lambda: known.removals_taken == 1)
    told = len(calls)
    beaten = known.seen_at
    await until(lambda: known.seen_at != beaten)
    assert len(calls) == told
    barn.holder.recorded.append(Removal(cid="y", time=2.0, by=""))
    await until(lambda: calls[-1] == 2)
    barn.holder.recorded.clear()
    await until(lambda: calls[-1] == 0)


async def test_one_that_was_never_reached_is_away_since_it_is_looked_for(pair: Pair) -> None:
    attic, barn = pair
    await barn.server.stop()
    began = attic.heartbeats._monotonic()
    attic.begin_watch()
    await until(lambda: _of(attic, barn).problem)
    assert began <= _of(attic, barn).away_since <= attic.heartbeats._monotonic()


async def test_two_that_cannot_agree_do_not_answer_each_other_without_a_pause(pair: Pair) -> None:
    """An older meshd leaves out what it does not know, so the rosters differ however often they are exchanged."""
    attic, barn = pair
    merge = barn.store.merge

    async def older(theirs: Roster) -> bool:
        unmarked = {"leaving_since": 0.0, "leaving_stamp": 0.0}
        return await merge(Roster(members=[m.model_copy(update=unmarked) for m in theirs.members]))

    barn.store.merge = older  # type: ignore[method-assign]
    await attic.store.set_leaving(True)
    await attic.store.set_leaving(False)
    beats: Counter[str] = Counter()
    for node in pair:
        node.heartbeats._interval = 3600.0
        _count(node, beats)
        node.begin_watch()
    for _ in range(20):  # whatever they set off has come to its end
        before = beats.total()
        for node in pair:
            node.heartbeats.poke()
        await until(functools.partial(_beaten, beats, before + 2))
    assert attic.store.digest() != barn.store.digest()
    assert beats.total() <= 20 * 2 + 12, "each of them beats when it is told to, and hardly more"


def _beaten(beats: Counter[str], times: int) -> bool:
    return beats.total() >= times


def _count(node: Node, beats: Counter[str]) -> None:
    call = node.peers.call

    async def counted(peer: Member, verb: Verb[Q, A], asked: Q) -> A:
        beats[node.name] += verb.path == verbs.BEAT.path
        return await call(peer, verb, asked)

    node.peers.call = counted  # type: ignore[method-assign]


async def test_a_slow_hook_does_not_stop_the_beat(pair: Pair) -> None:
    attic, barn = pair
    inside = asyncio.Event()

    async def never(member: Member, count: int) -> None:
        inside.set()
        await asyncio.Event().wait()

    attic.heartbeats._on_removals = never
    barn.holder.recorded = [Removal(cid="x", time=1.0, by="")]
    attic.begin_watch()
    async with asyncio.timeout(30):
        await inside.wait()
    before = _of(attic, barn).seen_at
    await until(lambda: _of(attic, barn).seen_at > before)


async def test_the_forgotten_learns_it_and_keeps_it(pair: Pair) -> None:
    attic, barn = pair
    for node in pair:
        node.begin_watch()
    await until(lambda: _of(attic, barn).reachable)
    session = attic.peers._lines[barn.fingerprint].session
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    await until(lambda: session.closed)
    await until(lambda: barn.store.forgotten)
    assert attic.heartbeats.states() == ()
    await until(lambda: not barn.heartbeats._monitored)
    assert not attic.store.forgotten


async def test_who_had_it_forgotten_is_told_and_not_who_said_so_first(
    pair: Pair, make_node: MakeNode
) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    await attic.store.forget(cellar.fingerprint, by=attic.fingerprint)
    await barn.store.merge(attic.store.roster())
    await attic.server.stop()  # barn is the one that cellar hears it from
    await cellar.store.merge(Roster(members=[cellar.view_of(attic), attic.view_of(barn)]))
    cellar.begin_watch()
    await until(lambda: cellar.store.forgotten)
    assert cellar.store.me().forgotten_by == attic.fingerprint


@pytest.mark.parametrize("by", [None, "f" * 64, "nobody"])
async def test_where_it_is_not_told_who_had_it_forgotten_nobody_is_accused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, by: str | None
) -> None:
    """An older meshd does not say it; and what is no member is not written down."""
    attic, barn = pair
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    answer = problem.answer
    monkeypatch.setattr(problem, "answer", lambda e, surface: answer(_by(e, by or ""), surface))
    barn.begin_watch()
    await until(lambda: barn.store.forgotten)
    assert barn.store.me().forgotten_by == ""


def _by(error: MeshError, by: str) -> MeshError:
    return MeshError(error.code, error.title, error.detail, error.hint, by=by)


async def test_a_frozen_peer_delays_no_other(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    stuck = asyncio.Event()
    beat = cellar.holder.beat

    async def frozen() -> Heartbeat:
        await stuck.wait()
        return await beat()

    cellar.holder.beat = frozen  # type: ignore[method-assign]
    attic.begin_watch()
    await until(lambda: _of(attic, barn).reachable)
    before = _of(attic, barn).seen_at
    await until(lambda: _of(attic, barn).seen_at > before)
    assert not _of(attic, cellar).reachable
    stuck.set()


async def test_a_mistake_in_one_beat_does_not_end_the_watch(pair: Pair) -> None:
    attic, barn = pair
    beat, broken = attic.holder.beat, True

    async def sometimes() -> Heartbeat:
        if broken:
            raise RuntimeError("a mistake")
        return await beat()

    attic.heartbeats._own_beat = sometimes  # type: ignore[method-assign]
    attic.begin_watch()
    await until(lambda: "RuntimeError" in _of(attic, barn).problem)
    broken = False
    await until(lambda: _of(attic, barn).reachable)


async def test_heard_from_a_peer_that_was_lost(pair: Pair) -> None:
    attic, barn = pair
    attic.heartbeats._interval = 60.0
    port = barn.port
    await barn.server.stop()
    attic.begin_watch()
    await until(lambda: _of(attic, barn).problem != "")
    await barn.server.start(barn.listen, port)
    await barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat())
    await until(lambda: _of(attic, barn).reachable, seconds=5)
    before = _of(attic, barn).seen_at
    attic.heartbeats.poke(barn.fingerprint)
    await until(lambda: _of(attic, barn).seen_at > before, seconds=5)


def _counted(name: str, work: Callable[..., object], calls: list[str]) -> Callable[..., object]:
    def counted(*given: object) -> object:
        calls.append(name)
        return work(*given)

    return counted


async def test_looking_at_the_others_costs_nothing_while_nothing_is_new(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    attic, barn = pair
    attic.begin_watch()
    await until(lambda: _of(attic, barn).reachable)
    known = attic.heartbeats._monitored[barn.fingerprint]
    attic.heartbeats._interval = 60.0
    beaten = known.seen_at
    attic.heartbeats.poke()
    await until(lambda: known.seen_at != beaten and not known.wake.is_set())
    work: list[str] = []
    for place, name in ((roster, "names"), (attic.heartbeats, "_state")):
        monkeypatch.setattr(place, name, _counted(name, getattr(place, name), work))
    for _ in range(1000):
        attic.heartbeats.states()
        attic.store.name_of(barn.fingerprint)
    assert len(work) <= 1  # what the last beat brought
    work.clear()
    await attic.store.update_self(attic.joiner(site="house-1"))
    for _ in range(1000):
        assert [s.name for s in attic.heartbeats.states()] == ["barn"]
        assert attic.store.by_name("barn") == attic.view_of(barn)
    assert work.count("names") == 1  # once a change of the roster, and not once a member


async def test_who_falls_silent_is_seen_to_be_away_without_any_news(pair: Pair) -> None:
    attic, barn = pair
    clock = Clock(100.0)
    attic.heartbeats._monotonic = clock
    attic.begin_watch()
    await until(lambda: _of(attic, barn).reachable)
    stuck = asyncio.Event()

    async def frozen() -> Heartbeat:
        await stuck.wait()
        raise MeshError(Code.NOT_READY, "cannot beat")

    known = attic.heartbeats._monitored[barn.fingerprint]
    attic.heartbeats._own_beat = frozen  # type: ignore[method-assign]
    attic.heartbeats.poke()
    await until(lambda: not known.wake.is_set())
    assert _of(attic, barn).reachable
    assert known.seen_at is not None
    clock.at = known.seen_at + 4 * attic.heartbeats._interval
    assert not _of(attic, barn).reachable
    stuck.set()
