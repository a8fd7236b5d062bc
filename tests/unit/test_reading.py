"""A reading of the cluster's list: what differs is written, and nothing else; what was looked at since is left as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshd import db
from meshd.cluster import rest
from meshd.model import Pin
from meshd.pins import reading
from meshd.pins.index import CatalogueIndex
from meshd.pins.reading import Reading


def record(cid: str, name: str = "") -> bytes:
    return json.dumps({"cid": cid, "name": name or f"name {cid}", "allocations": ["n1"]}).encode()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CatalogueIndex]:
    with closing(CatalogueIndex(tmp_path / "catalogue.db")) as made:
        yield made


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CIDs of the records that were parsed."""
    cids: list[str] = []

    def counting(document: dict[str, Any]) -> Pin:
        cids.append(document["cid"])
        return rest.parse_pin(document)

    monkeypatch.setattr(reading, "parse_pin", counting)
    return cids


def read(index: CatalogueIndex, *lines: bytes, newer: frozenset[str] = frozenset()) -> bool:
    """Whether anything changed."""
    one = Reading(index)
    for line in lines:
        one.take([line], newer)
    one.end(newer)
    return one.changed


def names(index: CatalogueIndex) -> dict[str, str]:
    return {p.cid: p.name for p in index.part()}


def test_what_came_what_changed_and_what_went(index: CatalogueIndex) -> None:
    assert read(index, record("a"), record("b"), record("c"))
    assert read(index, record("a"), record("b", "other"), record("d"))
    assert names(index) == {"a": "name a", "b": "other", "d": "name d"}
    assert read(index)
    assert names(index) == {}


def test_a_record_that_is_as_it_was_is_not_parsed_nor_written(
    index: CatalogueIndex, parsed: list[str], tmp_path: Path
) -> None:
    read(index, record("a"), record("b"))
    assert not read(index, record("b"), record("a"))
    assert parsed == ["a", "b"]
    index.close()
    with closing(CatalogueIndex(tmp_path / "catalogue.db")) as again:
        assert not read(again, record("a"), record("b"))
    assert parsed == ["a", "b"], "nor after a restart"


def test_what_was_looked_at_since_is_not_taken_from_the_list(index: CatalogueIndex) -> None:
    """The list may be older: it lacks what was pinned since, and has what was removed since."""
    read(index, record("a"), record("gone"))
    index.apply({"new": rest.parse_pin(json.loads(record("new"))), "gone": None})
    read(index, record("a"), record("gone"), newer=frozenset({"new", "gone"}))
    assert set(names(index)) == {"a", "new"}
    read(index, record("a"), record("new"))
    assert set(names(index)) == {"a", "new"}


def test_what_a_look_changed_is_compared_with_the_list_again(index: CatalogueIndex) -> None:
    read(index, record("a"))
    index.apply({"a": rest.parse_pin(json.loads(record("a", "looked")))})
    assert read(index, record("a"))
    assert names(index) == {"a": "name a"}


def test_more_goes_than_is_looked_at_at_once(index: CatalogueIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LOOKED_AT", 3)
    monkeypatch.setattr(reading, "PART", 2)
    read(index, *(record(f"c{n}") for n in range(20)))
    read(index, record("c3"), record("c17"))
    assert set(names(index)) == {"c3", "c17"}


def test_the_same_cid_twice_counts_once(index: CatalogueIndex) -> None:
    one = Reading(index)
    one.take([record("a"), record("a", "other")], set())
    one.take([record("a", "third")], set())
    one.end(set())
    assert names(index) == {"a": "third"}


def test_an_index_that_does_not_have_what_was_put_in_is_thrown_away(index: CatalogueIndex) -> None:
    """Whatever lost it: it must not be believed, as `leave` goes by it."""
    one = Reading(index)
    one.take([record("a"), record("b")], set())
    index.run(lambda sql: sql.execute("DELETE FROM entries WHERE cid = 'b'"))
    with pytest.raises(db.Discarded):
        one.end(set())
    assert names(index) == {}
