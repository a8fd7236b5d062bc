"""What a member may have this node do with its content, and what this node takes from a member's word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshd.errors import Code, MeshError
from meshd.wire import ConfirmRequest, ReleaseRequest, Removal, Removals
from tests.mesh_room.nodes import Node, calling
from tests.pins.attic import Attic


async def test_its_owner_has_an_entry_let_go_at_once(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint, kept=False)
    assert (
        await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    ).released
    assert not attic.has(pin)


async def test_nobody_else_has(attic: Attic, barn: Node, cellar: Node) -> None:
    for owner in (attic.node, cellar):
        pin = attic.entry(attic.node, barn, owner=owner.fingerprint, kept=False)
        with pytest.raises(MeshError) as caught:
            await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
        assert caught.value.code is Code.NOT_OWNER
        assert attic.has(pin)


async def test_who_the_owner_is_the_entry_says_and_not_what_was_told(attic: Attic, barn: Node) -> None:
    """The record may have come from a member that calls itself the owner, when the entry was not here."""
    pin = attic.entry(attic.node, owner=attic.node.fingerprint, kept=False)
    told = attic.removal(pin, by=barn.fingerprint, owner=barn.fingerprint)
    await attic.pins.journal.record([told])
    with pytest.raises(MeshError) as caught:
        await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    assert caught.value.code is Code.NOT_OWNER
    assert attic.has(pin)


async def test_what_is_in_the_pinset_is_not_let_go_though_the_owner_asks(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.pins.remove._GONE_TIMEOUT", 0.1)
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint)
    answer = await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    assert (answer.released, answer.detail) == (
        False,
        "it is still in the pinset, as this node knows it",
    )
    assert attic.has(pin)


async def test_where_kubo_does_not_answer_it_is_not_said_to_be_gone(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint, kept=False)
    attic.fake_kubo.fails["dag/get"] = "out of order"
    with pytest.raises(MeshError):
        await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    assert attic.has(pin)


async def test_what_was_let_go_is_not_called_held(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint, kept=False)
    assert (await attic.pins.peer_backend.confirm(calling("f"), ConfirmRequest(cids=[pin.cid]))).states == {
        pin.cid: "held"
    }
    await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    assert (await attic.pins.peer_backend.confirm(calling("f"), ConfirmRequest(cids=[pin.cid]))).states == {
        pin.cid: "missing"
    }
    assert pin.cid not in attic.pins.gate.durable, "nor remembered as on the disk"


# -- what others tell of removals ----------------------------------------------------------------------------------


async def test_a_removal_that_is_told_is_recorded_and_the_content_stays(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    await attic.pins.peer_backend.take_removals(
        calling(barn.fingerprint), Removals(removals=[attic.removal(pin, by=barn.fingerprint)], total=0)
    )
    assert attic.says(pin) == "lying"
    assert attic.has(pin)


async def test_the_owner_itself_has_it_let_go_at_once(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint, kept=False)
    told = attic.removal(pin, by=barn.fingerprint, now=True)
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    assert not attic.has(pin)
    assert attic.says(pin) == "gone"


async def test_nobody_has_it_let_go_in_the_owner_s_name(attic: Attic, barn: Node, cellar: Node) -> None:
    pin = attic.entry(attic.node, owner=cellar.fingerprint, kept=False)
    told = attic.removal(pin, by=cellar.fingerprint, now=True)
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    assert attic.has(pin)
    barn.holder.recorded = [told]
    await attic.pins.peer_backend.fetch_removals(attic.node.view_of(barn), 1)
    assert attic.has(pin)


async def test_nobody_has_it_let_go_by_calling_itself_the_owner(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(attic.node, owner=cellar.fingerprint, kept=False)
    told = attic.removal(pin, by=barn.fingerprint, owner=barn.fingerprint, now=True)
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    assert attic.has(pin)
    record = attic.pins.journal.get(pin.cid)
    assert record is not None
    assert record.owner == cellar.fingerprint


async def test_the_owner_has_it_let_go_by_its_own_word_and_not_by_what_it_passes_on(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    pin = attic.entry(attic.node, owner=barn.fingerprint, kept=False)
    told = attic.removal(pin, by=cellar.fingerprint, now=True)
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    assert (attic.has(pin), attic.says(pin)) == (True, "lying")


async def test_an_entry_that_comes_later_is_not_let_go_by_what_was_told_of_it_before(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    """It is not here, so nobody can see whose it is: the record shows what was told, and lets nothing go."""
    pin = attic.entry(barn, owner=cellar.fingerprint, here=False, kept=False)
    told = attic.removal(pin, by=cellar.fingerprint, owner=cellar.fingerprint, now=True)
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    record = attic.pins.journal.get(pin.cid)
    assert record is not None
    assert not record.now


async def test_what_the_pinset_has_is_not_recorded_as_removed_until_it_is_out(
    attic: Attic, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.pins.remove._EARLY_S", 0.0)
    pin = attic.entry(attic.node, barn)
    await attic.pins.peer_backend.take_removals(
        calling(barn.fingerprint), Removals(removals=[attic.removal(pin, by=barn.fingerprint)], total=0)
    )
    assert attic.says(pin) == ""
    await attic.pins.sweeper.sweep()
    assert attic.says(pin) == "", "the pinset has it still"
    del attic.fake_cluster.records[pin.cid]
    await attic.pins.sweeper.sweep()
    record = attic.pins.journal.get(pin.cid)
    assert record is not None
    assert record.by == barn.fingerprint, "and who did it is known"


async def test_what_went_is_not_made_new_by_being_told_again(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, owner=barn.fingerprint, kept=False)
    await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=pin.cid))
    await attic.pins.journal.record([attic.removal(pin)])
    await attic.pins.journal.mark_gone(pin.cid)
    await attic.pins.peer_backend.take_removals(
        calling(barn.fingerprint), Removals(removals=[attic.removal(pin, by=barn.fingerprint)], total=0)
    )
    assert attic.says(pin) == "gone"


# -- fetching them -------------------------------------------------------------------------------------------------


def recorded(attic: Attic, barn: Node, count: int) -> list[Removal]:
    pins = [attic.entry(barn, here=False, kept=False) for _ in range(count)]
    barn.holder.recorded = [attic.removal(pin, by=barn.fingerprint) for pin in pins]
    return barn.holder.recorded


def known(attic: Attic) -> set[str]:
    return {r.cid for r in attic.pins.journal.all()}


async def test_what_a_member_has_recorded_is_taken_once(attic: Attic, barn: Node) -> None:
    told = recorded(attic, barn, 3)
    asked: list[int] = []
    removals = barn.holder.removals

    def counted(after: int) -> Removals:
        asked.append(after)
        return removals(after)

    barn.holder.removals = counted  # type: ignore[method-assign]
    member = attic.node.view_of(barn)
    await attic.pins.peer_backend.fetch_removals(member, 3)
    assert known(attic) == {r.cid for r in told}
    await attic.pins.peer_backend.fetch_removals(member, 3)
    assert asked == [0]


async def test_a_member_that_was_set_up_anew_is_asked_from_the_beginning(attic: Attic, barn: Node) -> None:
    recorded(attic, barn, 3)
    member = attic.node.view_of(barn)
    await attic.pins.peer_backend.fetch_removals(member, 3)
    (new,) = recorded(attic, barn, 1)
    await attic.pins.peer_backend.fetch_removals(member, 1)
    assert new.cid in known(attic)


@pytest.mark.parametrize(
    "answer",
    [lambda after: Removals(removals=[], total=0), lambda after: Removals(removals=[], total=after)],
    ids=["none", "no more"],
)
async def test_a_member_that_has_fewer_than_it_says_is_not_asked_for_ever(
    attic: Attic, barn: Node, answer: Callable[[int], Removals]
) -> None:
    barn.holder.removals = answer  # type: ignore[method-assign, assignment]
    async with asyncio.timeout(30):
        await attic.pins.peer_backend.fetch_removals(attic.node.view_of(barn), 5)


# -- what it says of itself ----------------------------------------------------------------------------------------


async def test_a_node_whose_engines_do_not_run_takes_no_copies(attic: Attic) -> None:
    assert (await attic.pins.peer_backend.facts()).accepts
    attic.ready = False
    beat = await attic.pins.peer_backend.facts()
    assert (beat.ready, beat.accepts) == (False, False)


async def test_a_node_whose_disk_takes_nothing_takes_no_copies(attic: Attic) -> None:
    attic.pins.storage.unwritable = "Input/output error"
    assert not (await attic.pins.peer_backend.facts()).accepts


# -- what is no CID ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ipfs/{}", "{}/", "{}/root", "", "."])
async def test_a_path_where_a_cid_is_meant_is_neither_let_go_nor_recorded(
    attic: Attic, barn: Node, path: str
) -> None:
    """kubo takes paths: by one, what is in the pinset could be named as if it were not."""
    pin = attic.entry(attic.node, barn, owner=barn.fingerprint)
    named = path.format(pin.cid)
    attic.fake_kubo.blocks[named] = attic.fake_kubo.blocks[pin.cid]
    attic.fake_kubo.names[named] = "as kubo understands it"
    with pytest.raises(MeshError) as caught:
        await attic.pins.peer_backend.release(calling(barn.fingerprint), ReleaseRequest(cid=named))
    assert (caught.value.code, caught.value.title) == (Code.BAD_REQUEST, "cannot let that go")
    told = attic.removal(pin, by=barn.fingerprint, now=True).model_copy(update={"cid": named})
    await attic.pins.peer_backend.take_removals(calling(barn.fingerprint), Removals(removals=[told], total=0))
    assert attic.pins.journal.all() == []
    assert attic.has(pin)
    assert named in attic.fake_kubo.names
