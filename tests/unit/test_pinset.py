"""What the cluster's pinset says, read as entries: also what another program or a hostile member put there."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from meshd.cluster.rest import parse_pin
from meshd.model import Pin
from meshd.pins.entries import NumberedPin, view

CID = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
OURS = {
    "owner": "f1",
    "root": "bafkroot",
    "size": "5",
    "files": "2",
    "time": "1700000000.125",
    "wanted": "3",
    "directory": "1",
}


def document(**facts: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"cid": CID, "name": "club", "allocations": ["c1"], "replication_factor_max": 1}
    return base | {"metadata": OURS} | facts


def test_an_entry_is_read_with_all_that_was_given() -> None:
    assert parse_pin(document()) == Pin(
        cid=CID,
        name="club",
        owner="f1",
        root="bafkroot",
        size=5,
        files=2,
        time=1700000000.125,
        wanted=3,
        directory=True,
        allocations=("c1",),
    )


def test_a_cid_may_be_a_link() -> None:
    assert parse_pin(document(cid={"/": CID})).cid == CID


def test_what_another_program_pinned_is_shown_by_its_cid() -> None:
    foreign = parse_pin(
        {"cid": CID, "name": "", "metadata": None, "allocations": None, "replication_factor_max": -1}
    )
    assert (foreign.name, foreign.root, foreign.wanted) == (CID, CID, "all")
    assert (foreign.owner, foreign.size, foreign.time, foreign.allocations) == ("", 0, 0.0, ())


def test_what_another_program_pinned_is_wanted_as_often_as_it_said() -> None:
    assert parse_pin(document(metadata={}, replication_factor_max=2)).wanted == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"size": "big"},
        {"size": "-5"},
        {"time": "inf"},
        {"time": "nan"},
        {"time": "noon"},
        {"wanted": "0"},
        {"wanted": "-2"},
        {"wanted": "100000"},
        {"wanted": "some"},
        {"files": "x"},
    ],
    ids=lambda damage: "=".join(*damage.items()),
)
def test_one_entry_that_makes_no_sense_does_not_keep_the_others_from_being_listed(
    damage: dict[str, str],
) -> None:
    pin = parse_pin(document(metadata=OURS | damage))
    shown = json.loads(view(NumberedPin(pin, 1), "attic", mine=False).model_dump_json())
    assert shown["size"] >= 0
    assert isinstance(shown["time"], float)


@given(st.dictionaries(st.sampled_from(sorted(OURS)), st.text(max_size=8)))
@example({"wanted": "0", "size": "1", "time": "1"})
def test_no_metadata_breaks_the_listing(metadata: dict[str, str]) -> None:
    pin = parse_pin(document(metadata=metadata))
    assert json.loads(view(NumberedPin(pin, 1), "attic", mine=False).model_dump_json())
