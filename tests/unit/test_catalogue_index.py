"""The index of the catalogue: whatever comes and goes, it tells of it what a list made anew would tell."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.errors import MeshError
from meshd.model import Pin
from meshd.pins import entries
from meshd.pins.catalogue import resolve
from meshd.pins.entries import NumberedPin
from meshd.pins.index import CatalogueIndex, Key, Order, Search, key_of

CIDS = st.sampled_from([f"c{n}" for n in range(12)])
PINS = st.builds(
    Pin,
    cid=CIDS,
    name=st.sampled_from(["a", "a@2", "ab", "B", "c1", "é", "ﬀ", "\U0001f3bb", "a\0b"]),
    owner=st.sampled_from(["f1", "f2", ""]),
    root=st.sampled_from(["r1", "r2"]),
    size=st.integers(0, 9),
    time=st.sampled_from([0.0, 1.0, 2.5]),
    wanted=st.sampled_from([3, "all"]),
    directory=st.booleans(),
    allocations=st.sampled_from([(), ("n1",), ("n1", "n2")]),
    files=st.integers(0, 3),
    tags=st.sampled_from([(), ("x",), ("x", "y")]),
)


def one(cid: str, **facts: Any) -> Pin:
    made = Pin(cid, f"name {cid}", "f1", "r", 5, 1.0, 3, allocations=("n1",))
    return replace(made, **facts)


@pytest.fixture
def index() -> Iterator[CatalogueIndex]:
    with closing(CatalogueIndex(None)) as made:
        yield made


def having(*pins: Pin) -> CatalogueIndex:
    made = CatalogueIndex(None)
    made.apply({p.cid: p for p in pins})
    return made


@given(st.lists(st.lists(PINS | CIDS, max_size=8), max_size=6))
def test_an_index_that_was_changed_is_as_one_that_was_made_anew(rounds: list[list[Pin | str]]) -> None:
    """A Pin is put in or in place of another one; a CID goes."""
    pins: dict[str, Pin] = {}
    with closing(CatalogueIndex(None)) as index:
        for changed in rounds:
            changes = {c if isinstance(c, str) else c.cid: None if isinstance(c, str) else c for c in changed}
            before = dict(pins)
            pins |= {cid: pin for cid, pin in changes.items() if pin is not None}
            for cid in [cid for cid, pin in changes.items() if pin is None]:
                pins.pop(cid, None)
            assert index.apply(changes) == (pins != before)
            agrees(index, pins)


def agrees(index: CatalogueIndex, pins: dict[str, Pin]) -> None:
    numbered = entries.number(pins.values())
    assert index.page(Search(), limit=20).entries == numbered
    assert [index.numbered(n.pin.cid) for n in numbered] == numbered
    assert [p for part in parts(index) for p in part] == sorted(pins.values(), key=lambda p: p.cid)
    sums = index.sums("n2")
    assert (sums.entries, sums.size) == (len(pins), sum(p.size for p in pins.values()))
    assert sums.here == sum(not p.allocations or "n2" in p.allocations for p in pins.values())
    tagged = index.page(Search(tag="x"), limit=20).entries
    assert {n.pin.cid for n in tagged} == {p.cid for p in pins.values() if "x" in p.tags}
    assert index.owners() == {p.owner for p in pins.values()}
    placed = {(p.owner, p.wanted, p.allocations) for p in pins.values()}
    assert {(p.owner, p.wanted, p.allocations) for p in index.placement_groups()} == placed
    assert index.among(["c1", "c2", "none"]) == {"c1", "c2"} & pins.keys()
    assert {p.cid for p in index.of_root("r1")} == {p.cid for p in pins.values() if p.root == "r1"}
    for reference in ("a", "a@2", "a@3", "b", "c1", "c5", "none", "a@99999999999999999999"):
        assert meant(partial(resolve, index), reference) == meant(partial(resolve_all, pins), reference)


def parts(index: CatalogueIndex) -> Iterator[list[Pin]]:
    after = ""
    while part := index.part(after, limit=2):
        yield part
        after = part[-1].cid


def resolve_all(pins: dict[str, Pin], reference: str) -> NumberedPin:
    return entries.resolve(reference, pins.values())


def meant(find: Callable[[str], object], reference: str) -> tuple[object, ...]:
    try:
        return (find(reference),)
    except MeshError as exc:
        return (exc.code, exc.title, exc.detail, exc.hint)


# -- searching and sorting -----------------------------------------------------------------------------------------

SEARCHES = st.builds(
    Search,
    name=st.sampled_from(["", "A", "FF", "é", "\0"]),
    owners=st.sampled_from([None, (), ("f1",), ("f2", "")]),
    root=st.sampled_from(["", "r1"]),
    since=st.sampled_from([None, 0.0, 1.0, 2.5]),
    until=st.sampled_from([None, 0.0, 1.0, 2.5]),
    tag=st.sampled_from(["", "x", "y"]),
)


@given(
    st.lists(PINS, max_size=12, unique_by=lambda p: p.cid),
    SEARCHES,
    st.sampled_from(["name", "newest"]),
    st.integers(1, 4),
)
def test_pages_have_all_that_is_meant_in_order(
    pins: list[Pin], search: Search, order: Order, limit: int
) -> None:
    with closing(having(*pins)) as index:
        expected = [n for n in entries.number(pins) if is_meant(n.pin, search)]
        if order == "newest":
            expected.sort(key=lambda n: (-n.pin.time, n.pin.name, n.pin.cid))
        found: list[NumberedPin] = []
        after: Key | None = None
        for _ in range(13):
            page = index.page(search, limit=limit, after=after, order=order)
            assert page.total == len(expected)
            assert len(page.entries) <= limit
            found += page.entries
            if not page.more:
                break
            after = key_of(found[-1].pin)
        assert found == expected


def is_meant(pin: Pin, search: Search) -> bool:
    return (
        search.name.casefold() in pin.name.casefold()
        and (search.owners is None or pin.owner in search.owners)
        and (not search.root or pin.root == search.root)
        and (search.since is None or pin.time >= search.since)
        and (search.until is None or pin.time < search.until)
        and (not search.tag or search.tag in pin.tags)
    )


def test_an_owner_may_be_written_anyhow_and_is_a_value(index: CatalogueIndex) -> None:
    index.apply({"c1": one("c1"), "c2": one("c2", owner="x') OR 1=1 --")})
    assert index.page(Search(owners=("x') OR 1=1 --",)), limit=5).total == 1


def test_text_that_is_none_breaks_nothing(index: CatalogueIndex) -> None:
    """JSON can hold half of a character; a hostile member may write that."""
    index.apply({"c1": one("c1", name="\ud800x", owner="\udfff", root="\ud800", tags=("\ud800",))})
    assert index.page(Search(name="X"), limit=5).total == 1
    assert index.page(Search(name="\ud800"), limit=5, after=("\ud800", 0.0, "\ud800")).total == 1


# -- placement groups ----------------------------------------------------------------------------------------------------


def test_sums_cost_no_look_at_any_entry(index: CatalogueIndex) -> None:
    index.apply({f"c{n}": one(f"c{n}", size=n) for n in range(100)})
    [group] = index.placement_groups()
    assert (group.entries, group.size, group.owner) == (100, sum(range(100)), "f1")
    plan = index.run(lambda sql: sql.execute("EXPLAIN QUERY PLAN SELECT * FROM placements").fetchall())
    assert "entries" not in str(plan)


def test_those_of_a_placement_come_in_parts_and_no_larger_than_asked(index: CatalogueIndex) -> None:
    index.apply({f"c{n}": one(f"c{n}", size=n) for n in range(10)} | {"d": one("d", allocations=())})
    group = next(p for p in index.placement_groups() if p.allocations)
    found: list[int] = []
    after = 0
    while part := index.of_group(group.id, 6, after, limit=3):
        found += [pin.size for _, pin in part]
        after = part[-1][0]
    assert sorted(found) == list(range(7))
    assert index.count_in_groups({group.id: 6}) == 7


def test_the_first_names_of_some_groups(index: CatalogueIndex) -> None:
    index.apply({c: one(c, name=c, allocations=(a,)) for c, a in zip("dbcae", "xyxyz", strict=True)})
    chosen = [p.id for p in index.placement_groups() if p.allocations != ("z",)]
    assert index.names(chosen, limit=3) == ("a", "b", "c")
    assert index.names([], limit=3) == ()


def test_what_is_for_other_nodes(index: CatalogueIndex) -> None:
    for_all = one("all", allocations=())
    index.apply({p.cid: p for p in (one("n1"), one("n2", allocations=("n2",)), for_all)})
    assert [p.cid for p in index.elsewhere(["n1", "n2", "all", "none"], "n1")] == ["n2"]


# -- at length -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["name", "newest"])
def test_a_page_reads_no_more_than_itself(order: Order, index: CatalogueIndex) -> None:
    """However long the list: SQLite goes along an index, and sorts nothing."""
    said: list[str] = []
    index.run(lambda sql: sql.set_trace_callback(said.append))
    index.page(Search(), limit=10, after=("m", -1.0, "c"), order=order)
    index.run(lambda sql: sql.set_trace_callback(None))
    [page] = [statement for statement in said if "ORDER BY e." in statement]
    plan = str(index.run(lambda sql: sql.execute(f"EXPLAIN QUERY PLAN {page}").fetchall()))
    assert "SEARCH e USING INDEX by_" in plan
    assert "TEMP B-TREE" not in plan


def test_many_more_than_one_question_may_name(index: CatalogueIndex) -> None:
    index.apply({f"c{n}": one(f"c{n}") for n in range(2500)})
    assert len(index.among(f"c{n}" for n in range(0, 5000, 2))) == 1250
    assert len(index.pins([f"c{n}" for n in range(2500)])) == 2500
    assert next(itertools.chain(*parts(index))).cid == "c0"
    assert index.apply({f"c{n}": None for n in range(2400)})
    assert index.sums().entries == 100


def test_it_is_there_again_after_a_restart(tmp_path: Path) -> None:
    with closing(CatalogueIndex(tmp_path / "catalogue.db")) as index:
        index.apply({"c1": one("c1", tags=("x",))})
    with closing(CatalogueIndex(tmp_path / "catalogue.db")) as index:
        assert index.get("c1") == one("c1", tags=("x",))
