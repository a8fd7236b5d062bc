"""Who changes the allocations of entries, when, and of which."""

from __future__ import annotations

import dataclasses
import time

import pytest

from meshd.model import PeerState
from tests.mesh_room.nodes import Node
from tests.pins.attic import HIGHEST, LOWEST, Attic
from tests.waiting import until

HOUR = 3600.0


def sees(attic: Attic, fingerprint: str, *, reachable: bool) -> None:
    """There is one more node, of that fingerprint."""
    attic.more = [PeerState(fingerprint, "dairy", "10.0.0.9", reachable=reachable)]


async def test_an_entry_with_too_few_copies_gets_more(attic: Attic) -> None:
    pin = attic.entry(attic.node, wanted=3)
    await attic.pins.rebalancer.turn()
    await until(lambda: attic.allocated(pin) == ["attic", "barn", "cellar"])
    assert attic.pins.rebalancer.short == 1
    await attic.pins.rebalancer.turn()
    assert attic.pins.rebalancer.short == 0


async def test_a_node_that_says_it_has_more_room_than_there_can_be_holds_nothing_up(
    attic: Attic, barn: Node, cellar: Node
) -> None:
    """Any number may come from another machine, or from its filesystem."""
    pin = attic.entry(attic.node, wanted=2)
    for other in (barn, cellar):
        attic.state(other, free_bytes=2**70)
    await attic.pins.rebalancer.turn()
    await until(lambda: len(attic.allocated(pin)) == 2)


@pytest.mark.parametrize(
    ("other", "reachable", "elected"),
    [(LOWEST, True, False), (LOWEST, False, True), (HIGHEST, True, True)],
    ids=["a lower one", "a lower one that is away", "a higher one"],
)
async def test_one_elected_node_does_it_the_lowest_that_can_be_reached(
    attic: Attic, other: str, reachable: bool, elected: bool
) -> None:
    pin = attic.entry(attic.node, wanted=2)
    sees(attic, other, reachable=reachable)
    await attic.pins.rebalancer.turn()
    assert attic.pins.rebalancer.short == 1, "all of them count what is short"
    if elected:
        await until(lambda: len(attic.allocated(pin)) == 2)
    else:
        await attic.time_passes()
        assert attic.fake_cluster.posted == []


async def test_a_node_that_is_away_for_a_while_still_counts(attic: Attic, barn: Node) -> None:
    pin = attic.entry(attic.node, barn)
    attic.is_away(barn, 60.0)
    await attic.pins.rebalancer.turn()
    assert attic.pins.rebalancer.short == 0
    attic.is_away(barn, 24 * HOUR)
    await attic.pins.rebalancer.turn()
    await until(lambda: attic.allocated(pin) == ["attic", "cellar"])


async def test_a_node_that_was_not_reached_since_the_start_is_not_away_for_longer_than_that(
    attic: Attic, barn: Node
) -> None:
    """The clock that counts began with the machine: without this, each restart would move what is on the others."""
    pin = attic.entry(attic.node, barn)
    attic.state(barn, reachable=False, seen_at=0.0, away_since=time.monotonic())
    await attic.pins.rebalancer.turn()
    assert (attic.pins.rebalancer.short, attic.pins.rebalancer.lost) == (0, ())
    assert attic.allocated(pin) == ["attic", "barn"]


async def test_a_record_that_changes_meanwhile_is_left_as_it_is(attic: Attic) -> None:
    pin = attic.entry(attic.node)

    async def changed() -> None:
        attic.keep(dataclasses.replace(pin, allocations=("clustercellar",)))

    attic.fake_cluster.listed = changed
    await attic.pins.rebalancer.turn()
    await attic.time_passes()
    assert attic.fake_cluster.posted == []
    assert attic.allocated(pin) == ["cellar"]


async def test_an_entry_that_is_removed_meanwhile_is_not_put_back(attic: Attic) -> None:
    attic.entry(attic.node)

    async def removed() -> None:
        attic.fake_cluster.records.clear()

    attic.fake_cluster.listed = removed
    await attic.pins.rebalancer.turn()
    await attic.time_passes()
    assert attic.fake_cluster.posted == []


async def test_what_nobody_has_any_more_is_told_and_left(attic: Attic, barn: Node) -> None:
    """There is nobody to copy it from; were it allocated to others, they would look for it for ever."""
    pin = attic.entry(barn, here=False)
    attic.is_away(barn, 24 * HOUR)
    await attic.pins.rebalancer.turn()
    await attic.time_passes()
    assert (attic.pins.rebalancer.lost_count, attic.pins.rebalancer.lost) == (1, (pin.name,))
    other = attic.entry(barn, here=False)
    await attic.pins.rebalancer.turn()
    assert set(attic.pins.rebalancer.lost) == {pin.name, other.name}
    attic.is_away(barn, 0.0)
    await attic.pins.rebalancer.turn()
    assert (attic.pins.rebalancer.lost_count, attic.pins.rebalancer.lost) == (0, ())
    assert attic.fake_cluster.posted == []


async def test_a_change_that_failed_is_not_made_again_at_once(attic: Attic) -> None:
    pin = attic.entry(attic.node)
    attic.fake_cluster.refuses = "no"
    await attic.pins.rebalancer.turn()
    await until(lambda: attic.fake_cluster.posted)
    for _ in range(3):
        await attic.time_passes()
        await attic.pins.rebalancer.turn()
    await attic.time_passes()
    assert attic.fake_cluster.posted == [pin.cid]
