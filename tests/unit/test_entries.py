"""Entries: their names, their numbers, and what a person may type for them."""

from __future__ import annotations

import dataclasses
import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from meshd.errors import Code, MeshError
from meshd.model import Pin, Replicas
from meshd.pins.entries import NumberedPin, check_name, from_node, is_cid, number, resolve, to_node, view

CID = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
ROOT = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


def pin(name: str = "minutes.pdf", time: float = 1.0, cid: str = CID, wanted: Replicas = 3) -> Pin:
    return Pin(cid=cid, name=name, owner="f1", root=ROOT, size=5, time=time, wanted=wanted)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "minutes-1974.pdf",
        "ä ö ü.txt",
        "日本語",
        "with space",
        "a@2",
        "-v",
        "🎻.mp3",
        "...",
        "a" * 255,
        "e\u0301",
    ],
)
def test_a_name_that_can_be_shown_is_taken_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "dots"),
        ("..", "dots"),
        ("a/b", "'/'"),
        ("/", "'/'"),
        ("a" * 256, "255 bytes"),
        ("ü" * 128, "255 bytes"),
        ("a\nb", "do not show"),
        ("a\0b", "do not show"),
        ("a\x1b[31m", "do not show"),
        ("a\x7f", "do not show"),
        ("a\x85b", "do not show"),
        ("evil\u202efdp.exe", "do not show"),  # right-to-left override
        ("a\u2066b", "do not show"),  # isolate
        ("a\u200bb", "do not show"),  # zero width space
        ("a\u200db", "do not show"),  # zero width joiner
        ("\ufeffa", "do not show"),  # byte order mark
        ("a\u2028b", "do not show"),  # line separator
        ("a\u2029b", "do not show"),
        ("a\udc80", "do not show"),  # a byte that is no UTF-8
        ("a\U000e0041", "do not show"),  # tag
    ],
)
def test_any_other_name_is_refused_with_its_reason(name: str, why: str) -> None:
    with pytest.raises(MeshError) as caught:
        check_name(name)
    assert caught.value.code is Code.BAD_NAME
    assert why in caught.value.detail
    assert caught.value.title.isascii(), "what cannot be shown is not shown"
    assert caught.value.hint == "give another one: meshctl pin PATH --name NAME"


@given(st.text())
def test_a_name_that_is_taken_can_be_printed_on_one_line_and_written_as_a_file(name: str) -> None:
    try:
        check_name(name)
    except MeshError:
        return
    assert name.splitlines() == [name]
    assert "/" not in name
    assert 0 < len(name.encode()) <= 255


@pytest.mark.parametrize("text", [CID, ROOT, "Qm" + "a" * 44])
def test_what_looks_like_a_cid_is_seen(text: str) -> None:
    assert is_cid(text)


@pytest.mark.parametrize("text", ["", "b", "backup", "Qm123", CID + "@2", CID.upper(), "minutes.pdf"])
def test_what_does_not_is_a_name(text: str) -> None:
    assert not is_cid(text)


# -- nodes ---------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_characters="/\x7f\xad", exclude_categories=["Cc"]), min_size=1, max_size=20)  # fmt: skip
PINS = st.builds(
    Pin,
    cid=st.just(CID),
    name=NAMES.filter(lambda n: n not in (".", "..")),
    owner=st.text("0123456789abcdef", min_size=1),
    root=st.just(ROOT),
    size=st.integers(0, 2**60),
    time=st.integers(0, 10**13).map(lambda ms: ms / 1000),
    wanted=st.integers(1, 1000) | st.just("all"),
    directory=st.booleans(),
    files=st.integers(0, 10**9),
)


@given(PINS)
@example(pin(wanted="all"))
@example(pin(time=519.391))  # a product of it with 1000 is a little less than 519391
def test_an_entry_is_read_from_its_node_as_it_was_written(entry: Pin) -> None:
    assert from_node(CID, json.loads(json.dumps(to_node(entry)))) == entry


def test_the_node_links_the_root_so_that_pinning_it_keeps_the_content() -> None:
    assert to_node(pin())["root"] == {"/": ROOT}


def test_the_same_thing_twice_is_two_entries() -> None:
    assert to_node(pin()) != to_node(pin())


@pytest.mark.parametrize(
    "node",
    [
        None,
        [],
        "text",
        {},
        {"v": 2},
        {"v": "1"},
        to_node(pin()) | {"v": 2},
        to_node(pin()) | {"root": ROOT},
        to_node(pin()) | {"root": None},
        to_node(pin()) | {"size": "big"},
        to_node(pin()) | {"size": None},
        to_node(pin()) | {"size": -1},
        to_node(pin()) | {"wanted": "most"},
        to_node(pin()) | {"wanted": "0"},
        to_node(pin()) | {"name": "../../etc/passwd"},
        to_node(pin()) | {"name": "evil\u202efdp.exe"},
        {k: v for k, v in to_node(pin()).items() if k != "owner"},
    ],
)
def test_what_is_no_entry_is_none(node: object) -> None:
    assert from_node(CID, node) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i), max_leaves=5), st.sampled_from(sorted(to_node(pin()))))  # fmt: skip
def test_no_damage_to_a_node_breaks_its_reader(damage: object, key: str) -> None:
    entry = from_node(CID, to_node(pin()) | {key: damage})
    if entry is not None:  # then it can be shown
        assert view(NumberedPin(entry, 1), "attic", mine=False).model_dump_json()
        assert entry.size >= 0


# -- numbers -------------------------------------------------------------------------------------------------------

MANY = st.lists(
    st.builds(pin, st.sampled_from(["a", "b", "a@2"]), st.integers(0, 5).map(float)), max_size=12
).map(lambda pins: [dataclasses.replace(p, cid=f"{CID[:-2]}{i:02}") for i, p in enumerate(pins)])


@given(MANY, st.randoms())
def test_numbers_count_from_the_newest_of_each_name(pins: list[Pin], chance: object) -> None:
    numbered = number(pins)
    assert sorted(n.pin.cid for n in numbered) == sorted(p.cid for p in pins)
    for name in {p.name for p in pins}:
        mine = sorted((n for n in numbered if n.pin.name == name), key=lambda n: n.version)
        assert [n.version for n in mine] == list(range(1, len(mine) + 1))
        assert [n.pin.time for n in mine] == sorted((n.pin.time for n in mine), reverse=True)


@given(MANY, st.randoms(use_true_random=False))
def test_numbers_do_not_depend_on_the_order_in_which_pins_are_listed(pins: list[Pin], chance: object) -> None:
    shuffled = list(pins)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert number(shuffled) == number(pins)


@given(MANY.filter(bool), st.data())
def test_what_is_shown_can_be_typed(pins: list[Pin], data: st.DataObject) -> None:
    """...but where one entry's name is what another one's older version is called: then the name is meant."""
    chosen = data.draw(st.sampled_from(number(pins)))
    found = resolve(chosen.reference, pins)
    assert found == chosen or found.pin.name == chosen.reference
    assert resolve(chosen.pin.cid, pins) == chosen


# -- references ----------------------------------------------------------------------------------------------------

OLD = pin("minutes.pdf", 1.0, CID)
NEW = pin("minutes.pdf", 2.0, ROOT)


def test_a_name_means_its_newest_entry() -> None:
    found = resolve("minutes.pdf", [OLD, NEW])
    assert (found.pin, found.version, found.reference) == (NEW, 1, "minutes.pdf")


def test_a_number_means_an_older_one() -> None:
    found = resolve("minutes.pdf@2", [OLD, NEW])
    assert (found.pin, found.version, found.reference) == (OLD, 2, "minutes.pdf@2")
    assert resolve("minutes.pdf@1", [OLD, NEW]).pin == NEW


def test_a_cid_means_its_entry() -> None:
    found = resolve(CID, [OLD, NEW])
    assert (found.pin, found.version) == (OLD, 2)


def test_a_name_that_ends_like_a_version_is_still_a_name() -> None:
    odd = pin("minutes.pdf@2", 3.0, "bafyodd")
    assert resolve("minutes.pdf@2", [OLD, NEW, odd]).pin == odd


@pytest.mark.parametrize(
    "reference", ["minutes", "minutes.pdf@0", "minutes.pdf@x", "minutes.pdf@", "@2", "", ROOT[:-1]]
)
def test_what_is_not_there_is_not_found(reference: str) -> None:
    with pytest.raises(MeshError) as caught:
        resolve(reference, [OLD])
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.title == f"cannot find {reference}"
    assert caught.value.hint == "meshctl ls"


@pytest.mark.parametrize(("pins", "has"), [([OLD], "1 version"), ([OLD, NEW], "2 versions")])
def test_a_version_that_is_not_there_is_told_how_many_there_are(pins: list[Pin], has: str) -> None:
    with pytest.raises(MeshError) as caught:
        resolve("minutes.pdf@7", pins)
    assert caught.value.detail == f"minutes.pdf has {has}"
    assert caught.value.hint == "meshctl ls --name=minutes.pdf"


def test_where_it_was_looked_for_is_told() -> None:
    with pytest.raises(MeshError, match="nothing in the trash has that name"):
        resolve("x", [], where="the trash")


def test_the_view_is_what_the_entry_is() -> None:
    shown = view(resolve("minutes.pdf@2", [OLD, NEW]), "attic", mine=True)
    assert (shown.cid, shown.name, shown.version, shown.owner, shown.mine) == (
        CID,
        "minutes.pdf",
        2,
        "attic",
        True,
    )
    assert (shown.root, shown.size, shown.time, shown.wanted) == (ROOT, 5, 1.0, 3)
    assert shown.held is None
