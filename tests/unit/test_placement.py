"""Which nodes keep an entry."""

from __future__ import annotations

import itertools
from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from meshd.model import Pin, Replicas
from meshd.pins.placement import (
    ANY_SIZE,
    Candidate,
    choose,
    elected,
    initial,
    largest_short,
    lost,
    plan,
    takeover,
    target,
)

HEAL = 600.0
IDS = st.integers(0, 9)


@st.composite
def candidate(draw: st.DrawFn, number: int) -> Candidate:
    able = draw(st.integers(0, 3)) > 0  # most are: else hardly two of a roster were
    reachable = able or draw(st.booleans())
    return Candidate(
        fingerprint=f"f{number}",
        cluster_id=f"c{number}",
        site=draw(st.sampled_from(["", "home", "office"])),
        free=draw(st.sampled_from([100, 10_000] if able else [0, 99, 10_000])),
        accepts=able or draw(st.booleans()),
        reachable=reachable,
        away_s=0.0 if reachable else draw(st.sampled_from([1.0, HEAL - 1, HEAL, HEAL * 9])),
    )


@st.composite
def rosters(draw: st.DrawFn) -> list[Candidate]:
    return [draw(candidate(number)) for number in range(draw(st.integers(0, 7)))]


COUNTS = st.integers(0, 8)
WANTED = st.integers(1, 8) | st.just("all")
KEPT = st.lists(st.integers(0, 9).map(lambda i: f"c{i}"), unique=True, max_size=5)


def fits(c: Candidate, size: int = 100) -> bool:
    return c.reachable and c.accepts and c.free >= size


def nodes(count: int, site: str = "") -> list[Candidate]:
    return [Candidate(f"f{i}", f"c{i}", site, free=1000) for i in range(count)]


# -- how many ------------------------------------------------------------------------------------------------------


@given(WANTED, st.integers(0, 20))
def test_there_are_never_more_copies_than_nodes(wanted: Replicas, count: int) -> None:
    assert target(wanted, count) == (count if wanted == "all" else min(wanted, count))


# -- choose --------------------------------------------------------------------------------------------------------


@given(COUNTS, rosters(), KEPT, IDS)
def test_never_more_than_asked_and_never_one_twice(
    count: int, roster: list[Candidate], keep: list[str], first: int
) -> None:
    chosen = choose(count, "cid", 100, roster, keep=keep, first=f"f{first}")
    assert len(chosen) <= count
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {c.cluster_id for c in roster}


@given(COUNTS, rosters(), KEPT)
def test_only_nodes_that_are_there_and_have_room_are_added(
    count: int, roster: list[Candidate], keep: list[str]
) -> None:
    by_id = {c.cluster_id: c for c in roster}
    for added in set(choose(count, "cid", 100, roster, keep=keep)) - set(keep):
        assert fits(by_id[added])


def test_who_is_away_or_takes_nothing_gets_no_copy_however_much_room_it_has() -> None:
    here = Candidate("f0", "c0", free=100)
    away = Candidate("f1", "c1", free=10**12, reachable=False, away_s=1.0)
    closed = Candidate("f2", "c2", free=10**12, accepts=False)
    small = Candidate("f3", "c3", free=99)
    assert choose(4, "cid", 100, [here, away, closed, small]) == ("c0",)
    assert choose(4, "cid", 100, [away, closed, small], first="f1") == ()


@given(COUNTS, rosters(), KEPT)
def test_as_many_as_can_be(count: int, roster: list[Candidate], keep: list[str]) -> None:
    able = {c.cluster_id for c in roster if fits(c)} | {
        i for i in keep if i in {c.cluster_id for c in roster}
    }
    assert len(choose(count, "cid", 100, roster, keep=keep)) == min(count, len(able))


@given(COUNTS, rosters(), KEPT)
def test_what_is_kept_comes_first_and_in_its_order(
    count: int, roster: list[Candidate], keep: list[str]
) -> None:
    there = [i for i in keep if i in {c.cluster_id for c in roster}]
    chosen = choose(count, "cid", 100, roster, keep=keep)
    assert list(chosen[: len(there)]) == there[:count]


@given(st.integers(1, 8), rosters(), st.data())
def test_the_own_node_is_first_where_it_can_be(
    count: int, roster: list[Candidate], data: st.DataObject
) -> None:
    able = [c for c in roster if fits(c)]
    if able:
        own = data.draw(st.sampled_from(able))
        assert choose(count, "cid", 100, roster, first=own.fingerprint)[0] == own.cluster_id


@given(
    st.integers(2, 4),
    st.lists(st.sampled_from(["", "home", "office"]), min_size=3, max_size=6),
    IDS,
    st.data(),
)
def test_one_site_twice_only_where_it_cannot_be_avoided(
    count: int, sites: list[str], own: int, data: st.DataObject
) -> None:
    room = st.sampled_from([100, 10_000, 10**6])
    roster = [Candidate(f"f{i}", f"c{i}", site, free=data.draw(room)) for i, site in enumerate(sites)]
    by_id = {c.cluster_id: c for c in roster}
    chosen = choose(count, "cid", 100, roster, first=f"f{own}")
    places = Counter(by_id[i].site or i for i in chosen)
    possible = {c.site or c.cluster_id for c in roster if fits(c)}
    assert len(places) == min(count, len(possible))


@given(COUNTS, rosters(), st.randoms(use_true_random=False))
def test_every_node_would_choose_the_same(count: int, roster: list[Candidate], chance: object) -> None:
    shuffled = list(roster)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(count, "cid", 100, shuffled) == choose(count, "cid", 100, roster)


def test_entries_spread_over_equal_nodes() -> None:
    uses = Counter(itertools.chain(*(choose(2, f"cid{i}", 1, nodes(6)) for i in range(600))))
    assert len(uses) == 6
    assert min(uses.values()) > 120


def test_the_node_with_clearly_more_room_is_preferred() -> None:
    roster = [*nodes(3), Candidate("f9", "c9", free=10**9)]
    assert all(choose(1, f"cid{i}", 1, roster) == ("c9",) for i in range(20))


# -- a new entry, and others in place of those that refuse ---------------------------------------------------------


def entry(wanted: Replicas, *on: str) -> Pin:
    return Pin("cid", "a.txt", "f0", "root", 100, 1.0, wanted, allocations=on)


def test_who_leaves_is_not_chosen_however_much_room_it_has() -> None:
    roster = [*nodes(2), Candidate("f2", "c2", free=10**12, leaving=True)]
    assert set(choose(3, "cid", 100, roster)) == {"c0", "c1"}
    assert set(initial(entry(3), roster, own="f1")) == {"c0", "c1"}
    assert initial(entry(3), roster, own="f1")[0] == "c1", "this node first: what is here need not be fetched"


def test_what_everybody_shall_have_names_nobody_and_the_rest_names_as_many_as_are_wanted() -> None:
    assert initial(entry("all"), nodes(3), own="f0") == ()
    assert [len(initial(entry(n), nodes(4), own="f0")) for n in (1, 2, 4, 9)] == [1, 2, 4, 4]


def test_another_is_chosen_for_who_may_not_be() -> None:
    roster = [*nodes(3), Candidate("f9", "c9", free=10**9)]
    assert "c9" in initial(entry(2), roster, own="f0")
    assert "c9" not in initial(entry(2), roster, own="f0", without={"c9"})
    assert len(initial(entry(2), roster, own="f0", without={"c9"})) == 2


def test_who_takes_over_comes_beside_those_that_were_chosen() -> None:
    """Dropped from the record, a node lets go: that is for later, once all the others hold it."""
    assert takeover(entry(2, "c0", "c1"), ["c0"], {"f1"}, nodes(3)) == ("c0", "c1", "c2")


def test_nobody_takes_over_where_all_hold_it_or_nobody_is_left() -> None:
    assert takeover(entry(2, "c0", "c1"), ["c0", "c1"], set(), nodes(3)) is None
    assert takeover(entry(2, "c0", "c1"), ["c0"], {"f1"}, nodes(2)) is None
    assert takeover(entry("all"), ["c0"], {"f1"}, nodes(3)) is None, "everybody is asked already"
    gone = [Candidate("f0", "c0", free=1000, leaving=True), *nodes(4)[1:]]
    taken = takeover(entry(2, "c0", "c1"), ["c0"], {"f1"}, gone)
    assert taken is not None
    assert set(taken) == {"c0", "c1", "c2", "c3"}, (
        "a copy on a node that leaves is none of those that are wanted"
    )
    leaving = [*nodes(2), Candidate("f2", "c2", free=10**9, leaving=True)]
    assert takeover(entry(2, "c0", "c1"), ["c0"], {"f1"}, leaving) is None, "it goes, and its copy with it"


# -- plan ----------------------------------------------------------------------------------------------------------


def decide(wanted: Replicas, allocations: list[str], roster: list[Candidate]) -> tuple[str, ...] | None:
    change = plan(wanted, "cid", 100, allocations, roster, heal_after_s=HEAL)
    return None if change is None else change.allocations


def counted(roster: list[Candidate]) -> set[str]:
    return {c.cluster_id for c in roster if c.reachable or c.away_s < HEAL}


@given(WANTED, KEPT, rosters())
def test_no_copy_on_a_node_that_counts_is_given_up(
    wanted: Replicas, allocations: list[str], roster: list[Candidate]
) -> None:
    new = decide(wanted, allocations, roster)
    if new:  # () is everywhere
        assert {i for i in allocations if i in counted(roster)} <= set(new)


@given(st.integers(1, 8), KEPT.filter(bool), rosters())
def test_a_change_gains_copies_but_never_more_than_wanted(
    wanted: int, allocations: list[str], roster: list[Candidate]
) -> None:
    new = decide(wanted, allocations, roster)
    if new is not None:
        good = [i for i in allocations if i in counted(roster)]
        assert len(good) < len(new) <= wanted


@given(WANTED, KEPT, rosters())
def test_once_done_there_is_nothing_to_do(
    wanted: Replicas, allocations: list[str], roster: list[Candidate]
) -> None:
    new = decide(wanted, allocations, roster)
    if new is not None:
        assert decide(wanted, list(new), roster) is None


@given(WANTED, KEPT, rosters())
def test_every_change_has_a_reason(wanted: Replicas, allocations: list[str], roster: list[Candidate]) -> None:
    change = plan(wanted, "cid", 100, allocations, roster, heal_after_s=HEAL)
    assert change is None or change.why


def test_a_mesh_that_grows_makes_the_copies_that_were_wanted() -> None:
    assert decide(3, ["c0"], nodes(1)) is None
    grown = decide(3, ["c0"], nodes(3))
    assert grown is not None
    assert set(grown) == {"c0", "c1", "c2"}


def test_a_short_outage_moves_nothing() -> None:
    away = [Candidate("f0", "c0", reachable=False, away_s=HEAL - 1), *nodes(4)[1:]]
    assert decide(2, ["c0", "c1"], away) is None


def test_a_node_that_stays_away_is_replaced() -> None:
    away = [Candidate("f0", "c0", reachable=False, away_s=HEAL), *nodes(4)[1:]]
    new = decide(2, ["c0", "c1"], away)
    assert new is not None
    assert new[0] == "c1"
    assert len(new) == 2
    assert "c0" not in new


def test_a_node_that_was_forgotten_is_replaced() -> None:
    change = plan(2, "cid", 100, ["c0", "c9"], nodes(2), heal_after_s=HEAL)
    assert change is not None
    assert change.allocations == ("c0", "c1")
    assert change.why == "1 of its nodes are gone"


def test_where_nobody_has_room_nothing_is_done() -> None:
    assert decide(2, ["c0"], [nodes(1)[0], Candidate("f1", "c1", free=5)]) is None


def test_what_everybody_has_is_not_made_less() -> None:
    assert decide(2, [], nodes(5)) is None


def test_what_all_shall_have_goes_everywhere() -> None:
    assert decide("all", ["c0"], nodes(3)) == ()
    assert decide("all", [], nodes(3)) is None


# -- what is lost --------------------------------------------------------------------------------------------------


def test_what_only_nodes_have_that_are_gone_is_lost_and_is_given_to_nobody() -> None:
    """There is nobody to copy it from, and others would look for it for ever."""
    gone = [Candidate("f0", "c0", reachable=False, away_s=HEAL), *nodes(3)[1:]]
    assert lost(["c0"], gone, heal_after_s=HEAL)
    assert lost(["c9"], gone, heal_after_s=HEAL), "it was forgotten"
    assert decide(2, ["c0"], gone) is None
    assert not lost(["c0", "c1"], gone, heal_after_s=HEAL)
    assert not lost([], gone, heal_after_s=HEAL), "everybody has it"


def test_nothing_is_lost_by_a_short_outage() -> None:
    away = [Candidate("f0", "c0", reachable=False, away_s=HEAL - 1), *nodes(3)[1:]]
    assert not lost(["c0"], away, heal_after_s=HEAL)


# -- who acts ------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 99).map(str), min_size=1))
def test_one_node_is_elected(live: set[str]) -> None:
    assert [own for own in live if elected(own, live)] == [min(live)]


def test_a_node_alone_elects_itself() -> None:
    assert elected("a", [])


@given(WANTED, KEPT, rosters(), st.sampled_from([0, 99, 100, 101, 10_000, 10_001, 2**56]))
def test_up_to_which_size_entries_are_short_is_what_the_plan_of_each_says(
    wanted: Replicas, allocations: list[str], roster: list[Candidate], size: int
) -> None:
    largest = largest_short(wanted, allocations, roster, heal_after_s=HEAL)
    short = plan(wanted, "cid", size, allocations, roster, heal_after_s=HEAL) is not None
    assert short == (largest is not None and size <= largest)
    assert largest is None or largest <= ANY_SIZE
