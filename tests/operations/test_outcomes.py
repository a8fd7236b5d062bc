"""What is said of an operation that was interrupted, as a table: pure."""

from __future__ import annotations

import pytest

from meshd import wire
from meshd.operations.aftermath import Outcome, of_entry, of_join, of_leave, of_no_entry
from meshd.operations.store import Record


def record(verb: str, subject: str = "minutes.pdf") -> Record:
    return Record(id="0a1b2c3d", verb=verb, subject=subject, by="anna", began=0.0)


def entry(*held: str, wanted: wire.Replicas = 3, away: tuple[str, ...] = ()) -> wire.Entry:
    copies = [wire.Copy(node=node, state="held") for node in held]
    copies += [wire.Copy(node=node, state="unknown") for node in away]
    return wire.Entry(
        cid="bafyentry",
        name="minutes.pdf",
        version=1,
        owner="attic",
        mine=True,
        root="bafyroot",
        size=1,
        files=1,
        directory=False,
        time=0.0,
        wanted=wanted,
        held=len(held),
        copies=copies,
    )


@pytest.mark.parametrize(
    ("verb", "view", "said", "settled"),
    [
        ("pin", entry("attic", "barn", "cellar"), "minutes.pdf is kept, with all its 3 copies", True),
        ("pin", entry("attic", wanted=1), "minutes.pdf is kept, with its one copy", True),
        ("pin", entry("attic", "barn", "cellar", "dairy", wanted="all"), "with all its 4 copies", True),
        (
            "pin",
            entry("attic", "barn", "cellar", wanted="all"),
            "minutes.pdf is kept, with 3 of 4 copies; the mesh makes the others by itself",
            True,
        ),
        (
            "pin",
            entry("attic", "barn", "cellar", "dairy", wanted=5),
            "with 4 of 5 copies, as many as there can be now",
            True,
        ),
        (
            "pin",
            entry("attic", away=("cellar", "barn")),
            "with 1 of 3 copies; barn, cellar cannot be asked; the mesh makes the others by itself",
            False,
        ),
        ("pin", entry("attic", "barn", "cellar", away=("dairy",)), "with all its 3 copies", True),
        ("restore", entry("attic", "barn", "cellar"), "minutes.pdf is back, with all its 3 copies", True),
    ],
)
def test_of_an_entry_in_the_list(verb: str, view: wire.Entry, said: str, settled: bool) -> None:
    outcome = of_entry(record(verb), view, members=4)
    assert outcome.detail.startswith("it was interrupted; minutes.pdf is ")
    assert outcome.detail.endswith(said)
    assert (outcome.hint, outcome.settled) == ("meshctl ls minutes.pdf", settled)


@pytest.mark.parametrize(
    ("verb", "in_trash", "said", "hint"),
    [
        ("pin", False, "minutes 2.pdf is not kept, and nothing of it stays pinned", "the same again"),
        ("restore", True, "minutes 2.pdf is in the trash still", "meshctl restore 'minutes 2.pdf'"),
        ("restore", False, "minutes 2.pdf is not kept any more", "meshctl ls; meshctl trash"),
        ("recover", False, "minutes 2.pdf is not kept any more", "meshctl ls; meshctl trash"),
    ],
)
def test_of_one_that_is_not_in_the_list(verb: str, in_trash: bool, said: str, hint: str) -> None:
    outcome = of_no_entry(record(verb, "minutes 2.pdf"), in_trash=in_trash)
    assert outcome == Outcome(f"it was interrupted; {said}", hint)


def test_of_a_join() -> None:
    assert of_join("join", "archive").detail.endswith("this node is a member of archive")
    assert of_join("join", "").detail.endswith("this node is in no mesh, as before")
    assert (of_join("join", "").hint, of_join("init", "").hint) == ("meshctl join", "meshctl init")


def test_of_a_leave() -> None:
    assert of_leave("archive", forgotten=False).detail.endswith(
        "this node is a member of archive still, and stays"
    )
    stated = of_leave("archive", forgotten=True)
    assert stated.detail.endswith("no member of archive any more, and what it held is here still")
    assert stated.hint == "meshctl leave"
    assert of_leave("", forgotten=False).detail.endswith(
        "this node left, and nothing of the mesh is here any more"
    )
