"""`meshctl rm`, `rm --now` and `restore`: what is refused, what stays after a failure, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic


async def nobody(_: wire.Wire) -> None:
    """Nobody reads what is told."""


async def refusal(attic: Attic, reference: str, *, now: bool = False) -> Code:
    with pytest.raises(MeshError) as caught:
        await attic.pins.remover.remove(reference, now=now)
    assert caught.value.hint, "what to type"
    return caught.value.code


# -- rm ------------------------------------------------------------------------------------------------------------


async def test_what_is_removed_is_out_of_the_pinset_recorded_and_kept(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    done = await attic.pins.remover.remove(pin.name)
    assert pin.cid not in attic.fake_cluster.records
    assert attic.says(pin) == "lying"
    assert attic.has(pin)
    assert {o.node: o.state for o in done.nodes} == {"attic": "trashed", "barn": "trashed"}
    assert (pin.cid, attic.node.fingerprint) in barn.holder.told


async def test_it_is_recorded_before_it_is_out_of_the_pinset(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut between the two leaves content that no list has and no record lets go."""
    pin = attic.entry(attic.node, barn)
    seen: list[str] = []
    unpin = attic.cluster.unpin

    async def looks(cid: str) -> bool:
        seen.append(attic.says(pin))
        return await unpin(cid)

    monkeypatch.setattr(attic.cluster, "unpin", looks)
    await attic.pins.remover.remove(pin.name)
    assert seen == ["lying"]


async def test_a_sweep_while_it_is_being_taken_out_leaves_the_record(attic: Attic, barn: Node) -> None:
    """The list has it still, so it would be taken for one that was put back."""
    pin = attic.entry(attic.node, barn)
    held = attic.fake_cluster.hold("DELETE pins/one")
    removing = asyncio.create_task(attic.pins.remover.remove(pin.name))
    await attic.fake_cluster.began["DELETE pins/one"].wait()
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "lying"
    held.set()
    await removing
    assert attic.says(pin) == "lying"
    assert not attic.pins.remover.under_way


async def test_a_removal_that_the_cluster_does_not_take_leaves_no_record(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one, the content would go at the end of the window, though it is in the pinset."""
    monkeypatch.setattr("meshd.pins.remove._GONE_TIMEOUT", 0.1)
    pin = attic.entry(attic.node, barn)
    attic.fake_cluster.commits = False
    assert await refusal(attic, pin.name) is Code.NOT_READY
    assert attic.says(pin) == ""
    assert not attic.pins.remover.under_way
    assert barn.holder.told == []


async def test_what_nobody_who_answers_holds_is_removed_by_force_only(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(barn, cellar, here=False)
    await barn.server.stop()
    cellar.holder.held.clear()
    assert await refusal(attic, pin.name) is Code.LAST_COPY
    assert pin.cid in attic.fake_cluster.records
    await attic.pins.remover.remove(pin.name, force=True)
    assert pin.cid not in attic.fake_cluster.records


# -- rm --now ------------------------------------------------------------------------------------------------------


async def test_only_the_owner_removes_at_once_and_force_changes_nothing(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(attic.node, barn, owner=cellar.fingerprint)
    for force in (False, True):
        with pytest.raises(MeshError) as caught:
            await attic.pins.remover.remove(pin.name, now=True, force=force)
        assert caught.value.code is Code.NOT_OWNER
    assert attic.has(pin)
    assert pin.cid in attic.fake_cluster.records


async def test_the_last_entry_of_some_content_is_removed_at_once_by_force_only(
    attic: Attic, barn: Node
) -> None:
    pin = attic.entry(attic.node, barn)
    attic.entry(attic.node, barn)  # of other content
    assert await refusal(attic, pin.name, now=True) is Code.LAST_COPY
    assert attic.has(pin)
    barn.holder.owners[pin.cid] = attic.node.fingerprint
    done = await attic.pins.remover.remove(pin.name, now=True, force=True)
    assert {o.node: o.state for o in done.nodes if o.node != "cellar"} == {
        "attic": "released",
        "barn": "released",
    }
    assert not attic.has(pin)
    assert attic.says(pin) == "gone"


async def test_where_another_entry_keeps_the_same_content_one_goes_at_once(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    other = attic.entry(attic.node, barn, root=pin.root)
    await attic.pins.remover.remove(pin.name, now=True)
    assert (attic.has(pin), attic.has(other)) == (False, True)


# -- restore -------------------------------------------------------------------------------------------------------


async def test_what_is_restored_is_in_the_pinset_again_and_out_of_the_trash(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    await attic.pins.remover.remove(pin.name)
    await attic.pins.remover.restore(pin.name, nobody)
    assert attic.allocated(pin) == ["attic", "barn"], "those that have it"
    assert attic.says(pin) == ""


async def test_what_nobody_has_any_more_is_not_restored(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    await attic.pins.remover.remove(pin.name)
    attic.fake_kubo.names.clear()
    barn.holder.held.clear()
    with pytest.raises(MeshError) as caught:
        await attic.pins.remover.restore(pin.name, nobody)
    assert caught.value.code is Code.NOT_FOUND
    assert pin.cid not in attic.fake_cluster.records


async def test_a_restore_that_fails_leaves_the_record(attic: Attic, barn: Node) -> None:
    """Without it the content would be in no list and in no trash."""
    pin = attic.entry(attic.node, barn)
    await attic.pins.remover.remove(pin.name)
    attic.fake_cluster.refuses = "no"
    with pytest.raises(MeshError):
        await attic.pins.remover.restore(pin.name, nobody)
    assert attic.says(pin) == "lying"


async def test_what_went_cannot_be_restored(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    await attic.pins.journal.record([attic.removal(pin)])
    await attic.pins.journal.mark_gone(pin.cid)
    with pytest.raises(MeshError) as caught:
        await attic.pins.remover.restore(pin.name, nobody)
    assert caught.value.code is Code.NOT_FOUND
