"""Members at new addresses: found at a seed or where another one was, or told by a person."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from meshd.errors import Code, MeshError
from meshd.mesh import seeds as module
from meshd.mesh.address_book import AddressBook
from meshd.mesh.invites import host_port
from meshd.mesh.seeds import ASKED_MOST, Pace, Resolver, Seeds, asked, usable
from meshd.model import PeerState
from meshd.wire import Roster
from tests.mesh_room.nodes import Node, refusal_of
from tests.waiting import until

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


def _of(node: Node, other: Node) -> PeerState:
    return next(state for state in node.heartbeats.states() if state.fingerprint == other.fingerprint)


def _where(node: Node) -> str:
    assert node.address is not None
    return host_port(node.address, node.port)


def _all_see_all(nodes: Sequence[Node]) -> bool:
    return all(state.reachable for node in nodes for state in node.heartbeats.states()) and (
        len({node.store.digest() for node in nodes}) == 1
    )


@contextlib.asynccontextmanager
async def _running(*seeds: Seeds) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in seeds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _away(node: Node, *others: Node) -> None:
    """Let `node` find that these do not answer where they were."""
    node.begin_watch()
    await until(lambda: all(_of(node, other).problem for other in others))
    assert not any(_of(node, other).reachable for other in others)


@pytest.fixture
async def trio(pair: Pair, make_node: MakeNode) -> tuple[Node, Node, Node]:
    """Three members that know each other."""
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    await barn.store.merge(attic.store.roster())
    return attic, barn, cellar


# -- found by themselves -------------------------------------------------------------------------------------------


async def test_all_that_moved_at_once_find_each_other_at_the_seeds(trio: tuple[Node, Node, Node]) -> None:
    for number, node in enumerate(trio):
        await node.move(f"127.0.0.{number + 11}")
        node.begin_watch()
    named = {node.name: node.address for node in trio}

    async def resolve(host: str) -> list[str]:
        return [str(named[host.removesuffix(".lan")])]

    everywhere = [f"{node.name}.lan:{node.port}" for node in trio]  # each leads also to the node itself
    async with _running(*(node.make_seeds(*everywhere, resolve=resolve) for node in trio)):
        await until(lambda: _all_see_all(trio), 30)
    for node in trio:
        for other in trio:
            assert node.view_of(other).address == other.address


async def test_those_that_got_each_other_s_addresses_find_each_other_without_seeds(
    trio: tuple[Node, Node, Node],
) -> None:
    places = [(node.listen, node.port) for node in trio]
    for node in trio:
        await node.server.stop()
    for node, place in zip(trio, [*places[1:], places[0]], strict=True):
        await node.move(*place)
        node.begin_watch()
    async with _running(*(node.make_seeds() for node in trio)):
        await until(lambda: _all_see_all(trio), 30)


async def test_a_mistake_in_a_round_is_left_to_the_guard_of_all_loops(pair: Pair) -> None:
    attic, barn = pair
    await barn.server.stop()
    await _away(attic, barn)

    async def resolve(_: str) -> list[str]:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        await asyncio.wait_for(attic.make_seeds("barn.lan", resolve=resolve).run(), 20)


async def test_a_seed_is_resolved_anew_at_each_round(pair: Pair) -> None:
    attic, barn = pair
    await barn.move("127.0.0.12")
    await _away(attic, barn)
    answers = [["127.0.0.99"], ["127.0.0.12"]]

    async def resolve(host: str) -> list[str]:
        return answers.pop(0)

    seeds = attic.make_seeds(f"barn.lan:{barn.port}", resolve=resolve)
    assert await seeds.look() == set()
    assert await seeds.look() == {barn.fingerprint}
    await until(lambda: _of(attic, barn).reachable)


async def test_a_name_that_cannot_be_resolved_holds_up_no_other(pair: Pair) -> None:
    attic, barn = pair
    await barn.move("127.0.0.12")
    await _away(attic, barn)

    async def resolve(host: str) -> list[str]:
        if host == "slow.lan":
            raise TimeoutError
        if host == "gone.lan":
            raise socket.gaierror(-2, "Name or service not known")
        return [host]

    seeds = attic.make_seeds("slow.lan", "gone.lan", _where(barn), resolve=resolve)
    assert await seeds.look() == {barn.fingerprint}


async def test_a_seed_that_leads_to_a_stranger_or_back_is_ignored(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    stranger = await make_node("stranger").start()
    await stranger.found("other")
    await barn.server.stop()
    await _away(attic, barn)
    seeds = attic.make_seeds(_where(stranger), _where(attic))
    before = attic.store.roster()
    assert await seeds.look() == set()
    assert _of(attic, barn).address == barn.listen
    assert attic.store.roster() == before


async def test_who_only_says_to_be_a_member_is_not_believed(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    liar = await make_node("liar").start()
    await barn.server.stop()
    await _away(attic, barn)
    liar.store._fingerprint = barn.fingerprint  # it keeps its own certificate
    with pytest.raises(MeshError, match="another node than the one whose certificate"):
        await attic.peers.hello("127.0.0.3", liar.port)
    assert await attic.make_seeds(_where(liar)).look() == set()
    assert _of(attic, barn).address == barn.listen


async def test_a_found_address_is_no_statement_about_the_other(pair: Pair) -> None:
    attic, barn = pair
    port = barn.port
    await barn.server.stop()
    await barn.server.start("127.0.0.12", 0)
    await _away(attic, barn)
    said = attic.store.roster()
    await attic.make_seeds(f"127.0.0.12:{barn.port}").look()
    await until(lambda: _of(attic, barn).reachable)
    assert _of(attic, barn).address == "127.0.0.12"
    assert attic.store.roster() == said  # barn has not said itself that it has moved
    await barn.server.stop()
    await barn.server.start(barn.listen, port)
    await until(lambda: not _of(attic, barn).reachable)
    await attic.make_seeds().look()  # it is back where it says that it is
    await until(lambda: _of(attic, barn).reachable)
    assert _of(attic, barn).address == barn.listen


async def test_nobody_is_asked_while_all_are_there(pair: Pair) -> None:
    attic, barn = pair
    attic.begin_watch()
    await until(lambda: _of(attic, barn).reachable)

    async def resolve(host: str) -> list[str]:
        raise AssertionError("nobody is away")

    assert await attic.make_seeds("barn.lan", resolve=resolve).look() == set()


@pytest.mark.parametrize(
    ("address", "local", "may"),
    [
        ("10.0.0.2", "10.0.0.1", True),
        ("100.64.0.2", "10.0.0.1", True),
        ("fd00::2", "fd00::1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("8.8.8.8", "10.0.0.1", False),
        ("2001:4860:4860::8888", "fd00::1", False),
        ("fd00::2", "10.0.0.1", False),
        ("169.254.169.254", "10.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", False),
        ("224.0.0.1", "10.0.0.1", False),
        ("attic.lan", "10.0.0.1", False),
    ],
)
def test_only_private_addresses_that_can_be_reached_are_asked(address: str, local: str, may: bool) -> None:
    assert usable(address, local) is may


def test_each_address_is_asked_once_and_a_round_is_bounded() -> None:
    many = [(f"10.0.{i // 250}.{1 + i % 250}", 4010) for i in range(500)]
    found = asked([*many, *many], "10.1.0.1", [many[0]])
    assert len(found) == ASKED_MOST
    assert len(set(found)) == ASKED_MOST
    assert many[0] not in found


def test_rounds_become_rarer_until_something_changes() -> None:
    pace, now, began = Pace(), 100.0, []
    while now < 700.0:
        if pace.due("barn is away", now):
            began.append(now)
        now += 0.25
    pauses = [b - a for a, b in itertools.pairwise(began)]
    assert pauses[0] <= 2.25
    assert max(pauses) <= 60.25
    assert pauses[-1] >= 48.0
    assert len(began) < 20
    assert pace.due("barn and cellar are away", now)
    assert not pace.due("barn and cellar are away", now + 1.0)


async def test_a_resolver_that_hangs_costs_one_thread_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    asked_for: list[str] = []

    def hangs(host: str, port: object, **_: object) -> list[object]:
        asked_for.append(host)
        let_go.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(module, "_RESOLVE_S", 0.2)
    resolver = Resolver()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await resolver("barn.lan")
    assert asked_for == ["barn.lan"]
    assert await resolver("10.0.0.2") == ["10.0.0.2"]
    let_go.set()
    await until(lambda: not resolver._under_way)
    assert await resolver("barn.lan") == []


async def test_all_who_ask_for_a_name_at_once_get_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds on one host, and a person who names it meanwhile."""
    asked_for: list[str] = []
    go = threading.Event()

    def slow(host: str, port: object, **_: object) -> list[object]:
        asked_for.append(host)
        assert go.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(module, "_RESOLVE_S", 30.0)
    resolver = Resolver()
    asking = [asyncio.create_task(resolver("barn.lan")) for _ in range(3)]
    await until(lambda: bool(asked_for))
    asking.pop(0).cancel()  # who gives up takes the answer from nobody
    go.set()
    assert await asyncio.gather(*asking) == [["10.0.0.9"], ["10.0.0.9"]]
    assert asked_for == ["barn.lan"]


async def test_a_name_is_resolved_by_the_system() -> None:
    assert "127.0.0.1" in await Resolver()("localhost")


# -- told by a person ----------------------------------------------------------------------------------------------


async def test_a_member_is_called_where_a_person_says_and_both_agree_again(pair: Pair) -> None:
    attic, barn = pair
    await attic.move("127.0.0.11")
    await barn.move("127.0.0.12")
    attic.heartbeats._interval = 60.0  # what happens does not wait for the next beat
    await _away(attic, barn)
    told = await attic.make_seeds().set_address("barn", _where(barn))
    assert (told.name, told.address, told.port) == ("barn", "127.0.0.12", barn.port)
    await until(lambda: _of(attic, barn).reachable)
    barn.begin_watch()
    await until(lambda: _all_see_all(pair))
    assert attic.view_of(barn).address == "127.0.0.12"
    assert barn.view_of(attic).address == "127.0.0.11"


async def test_what_a_person_said_outlasts_a_restart_and_ends_with_the_member_s_own_word(pair: Pair) -> None:
    attic, barn = pair
    stated = attic.view_of(barn)
    await barn.server.stop()
    await barn.server.start("127.0.0.12", 0)
    await attic.make_seeds().set_address("barn", f"127.0.0.12:{barn.port}")
    file = attic.folder / "addresses.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert AddressBook(file).of(stated) == ("127.0.0.12", barn.port)
    moved = stated.model_copy(update={"address": "127.0.0.13"})
    assert AddressBook(file).of(moved) == ("127.0.0.13", stated.peer_port)


async def test_what_a_member_has_overruled_does_not_hold_again_when_it_moves_back(pair: Pair) -> None:
    attic, barn = pair
    at_home = attic.view_of(barn)
    await barn.server.stop()
    await barn.server.start("127.0.0.12", 0)
    async with _running(attic.make_seeds()):
        await attic.make_seeds().set_address("barn", f"127.0.0.12:{barn.port}")
        assert attic.address_book.of(at_home) == ("127.0.0.12", barn.port)
        away = at_home.model_copy(update={"address": "127.0.0.12", "stamp": at_home.stamp + 1})
        await attic.store.merge(Roster(members=[away]))
        await until(lambda: attic.address_book.of(at_home) == (at_home.address, at_home.peer_port))
        await until(lambda: AddressBook(attic.folder / "addresses.json").of(at_home)[0] == at_home.address)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"f": 1}', '{"f": ["a", 1, "b", 2]}', '{"f": ["10.0.0.1", 1, "10.0.0.2", 0]}']
)
async def test_a_file_that_is_damaged_is_as_none(pair: Pair, text: str) -> None:
    attic, barn = pair
    stated = attic.view_of(barn)
    file = attic.folder / "addresses.json"
    file.write_text(text.replace('"f"', f'"{barn.fingerprint}"'))
    assert AddressBook(file).of(stated) == (stated.address, stated.peer_port)


async def test_an_address_where_the_member_is_not_is_refused_and_all_stays(
    pair: Pair, make_node: MakeNode
) -> None:
    attic, barn = pair
    cellar, stranger = await make_node("cellar").start(), await make_node("stranger").start()
    await cellar.join(await attic.invite())
    seeds, stated = attic.make_seeds(), attic.view_of(barn)

    async def refused(name: str, text: str) -> MeshError:
        error = await refusal_of(seeds.set_address(name, text))
        assert error.hint
        assert attic.address_book.of(stated) == (stated.address, stated.peer_port)
        assert not (attic.folder / "addresses.json").exists()
        return error

    error = await refused("barn", _where(cellar))
    assert (error.code, error.detail) == (Code.PEER_UNREACHABLE, "cellar answers there")
    assert error.hint == f"meshctl peers set cellar {_where(cellar)}"
    assert "no member of this mesh" in (await refused("barn", _where(stranger))).detail
    assert "this node itself" in (await refused("barn", _where(attic))).detail
    error = await refused("barn", "127.0.0.99:4010")
    assert error.code is Code.PEER_UNREACHABLE
    assert error.detail == "127.0.0.99:4010: nothing listens there"
    assert (await refused("nobody", "10.0.0.2")).code is Code.NOT_FOUND
    assert "this node" in (await refused("attic", "10.0.0.2")).detail
    assert "is not private" in (await refused("barn", "8.8.8.8")).detail
    assert "expected a host name" in (await refused("barn", "10.0.0.256")).detail
    assert "can be reached from 127.0.0.1" in (await refused("barn", "fd00::2")).detail


async def test_without_an_address_of_its_own_a_node_says_so(pair: Pair) -> None:
    attic, _ = pair
    attic.address = None
    error = await refusal_of(attic.make_seeds().set_address("barn", "127.0.0.2"))
    assert error.code is Code.NO_OVERLAY
    assert await attic.make_seeds("127.0.0.2").look() == set()
