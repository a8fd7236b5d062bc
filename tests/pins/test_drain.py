"""Before a node leaves or is forgotten: what only it holds is told, or copied away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.kubo.rpc import KuboError, LocalPin
from meshd.pins import gate
from meshd.wire import Confirmed, Member
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic

SOON_S = 20.0


async def everybody(members: Iterable[Member]) -> set[str]:
    """Each of them hears of it."""
    return {m.fingerprint for m in members}


async def leave(attic: Attic) -> None:
    async def nobody(_: wire.Wire) -> None:
        """Nobody reads what is told."""

    async with asyncio.timeout(SOON_S):
        await attic.pins.drain.drain(nobody, everybody)


async def refusal(attic: Attic) -> str:
    """Why it may not leave."""
    with pytest.raises(MeshError) as caught:
        await leave(attic)
    assert caught.value.code is Code.LAST_COPY
    return caught.value.detail


def held_by_others(attic: Attic, cid: str) -> bool:
    return any(cid in other.holder.held for other in attic.others)


async def test_what_only_it_holds_is_copied_to_another_node_first(attic: Attic) -> None:
    pin = attic.entry(attic.node)
    await leave(attic)
    assert held_by_others(attic, pin.cid)
    assert "attic" in attic.allocated(pin), "it stays a source until the copy is there"


@pytest.mark.parametrize("how", ["fails", "away"])
async def test_where_it_cannot_tell_what_it_holds_it_stays(how: str, attic: Attic) -> None:
    """As while kubo is being started: else it would go as if it held nothing."""
    attic.entry(attic.node)
    if how == "fails":
        attic.fake_kubo.fails = {"pin/ls": "it fails"}
    else:
        attic.fake_kubo.away = {"pin/ls"}
    with pytest.raises(MeshError) as caught:
        await leave(attic)
    assert caught.value.code in (Code.ENGINE_FAILED, Code.NOT_READY)


async def test_it_also_stays_where_kubo_is_stopped_while_it_lists_what_it_holds(
    attic: Attic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list ends anywhere then, and kubo answers no question about its pins any more."""
    monkeypatch.setattr(gate, "_FEW", 1)
    attic.entry(attic.node)
    attic.entry(attic.node)

    async def stopping() -> list[LocalPin]:
        attic.fake_kubo.fails = {"pin/ls": "pinner closed"}
        return []

    monkeypatch.setattr(attic.fake_kubo, "pins", stopping)
    with pytest.raises(KuboError) as caught:
        await leave(attic)
    assert caught.value.message == "pinner closed"


async def test_what_another_node_holds_is_left_as_it_is(attic: Attic, barn: Node) -> None:
    attic.entry(attic.node, barn, wanted=1)
    await leave(attic)
    assert attic.fake_cluster.posted == []


async def test_what_another_node_shall_hold_and_does_not_is_copied(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, wanted=3)
    barn.holder.held.clear()
    await leave(attic)
    assert held_by_others(attic, pin.cid)


async def test_a_copy_on_a_node_that_does_not_answer_does_not_count(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(attic.node, barn)
    await barn.server.stop()
    attic.is_away(barn, 60.0)
    with pytest.raises(MeshError) as caught:
        await leave(attic)
    assert pin.cid in cellar.holder.held
    assert caught.value.code is Code.FEWER_COPIES, "two are wanted, and one was seen"
    assert "barn: nothing listens there" in caught.value.detail


async def test_of_what_is_wanted_once_the_copy_is_made_elsewhere_also_where_there_is_less_room(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(attic.node, wanted=1)
    for other in (barn, cellar):
        attic.state(other, free_bytes=1000)
    await leave(attic)
    assert held_by_others(attic, pin.cid)


async def test_where_those_that_were_chosen_refuse_it_leaving_is_refused(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    async def refuses(cids: list[str]) -> Confirmed:
        return Confirmed(states=dict.fromkeys(cids, "refused"))

    pin = attic.entry(attic.node)
    for other in (barn, cellar):
        other.holder.confirm = refuses  # type: ignore[method-assign]
    assert pin.name in await refusal(attic)


async def test_what_comes_while_it_copies_is_copied_too(attic: Attic) -> None:
    pin = attic.entry(attic.node)
    late: list[Any] = []
    fetched = attic.fake_cluster.pinned

    def meanwhile(record: dict[str, Any]) -> None:
        fetched(record)
        if not late:
            late.append(attic.entry(attic.node))

    attic.fake_cluster.pinned = meanwhile
    await leave(attic)
    assert held_by_others(attic, pin.cid)
    assert held_by_others(attic, late[0].cid)


async def test_a_node_that_alone_holds_something_is_not_forgotten(attic: Attic, barn: Node) -> None:
    pin = attic.entry(barn, here=False)
    with pytest.raises(MeshError) as caught:
        await attic.pins.drain.check_forget(barn.store.me(), everybody)
    assert caught.value.code is Code.LAST_COPY
    assert pin.name in caught.value.detail
    assert "--force" in caught.value.hint


async def test_a_node_whose_content_others_hold_may_be_forgotten(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    attic.entry(barn, cellar, here=False)
    attic.entry(attic.node, barn)
    await attic.pins.drain.check_forget(barn.store.me(), everybody)


async def test_of_a_list_that_is_read_in_parts_no_part_is_forgotten(
    attic: Attic, barn: Node, cellar: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the node that leaves, nor by one that forgets another."""
    monkeypatch.setattr("meshd.pins.pinset.PART", 1)
    only_here = [attic.entry(attic.node, wanted=1) for _ in range(3)]
    attic.entry(attic.node, barn, cellar)
    staying = [barn.store.me(), cellar.store.me()]
    short = await attic.pins.drain._short(staying, {m.fingerprint for m in staying})
    assert {s.pin.cid for s in short} == {pin.cid for pin in only_here}
    only_there = [attic.entry(barn, wanted=1, here=False) for _ in range(3)]
    with pytest.raises(MeshError) as caught:
        await attic.pins.drain.check_forget(barn.store.me(), everybody)
    assert all(pin.name in caught.value.detail for pin in only_there)
