"""A mistake in one check, one fact or one listener hides nothing else that is wrong, and is told itself."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from meshd import config, files
from meshd.component import Component
from meshd.conditions import Check, Facts, FactSource
from meshd.diagnosis import Gathering
from meshd.errors import Code, MeshError, one_line
from meshd.health.board import Board
from meshd.health.checks import disk
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, Fault, Severity
from meshd.node import Node
from meshd.pins.facts import PinFacts
from tests.engines.machine import short_folder
from tests.unit.built import close
from tests.unit.facts import KINDS, Looked, every_check, facts


def codes(board: Board) -> set[tuple[str, str]]:
    return {c.key for c in board.conditions}


class Broken:
    """The check of storage, which raises while `breaks`, among all the others."""

    def __init__(self) -> None:
        self.breaks = False
        self.board = Looked(
            Check("storage", self.look) if check.name == "storage" else check for check in every_check()
        )

    def look(self, given: Facts) -> Iterator[Condition]:
        if self.breaks:
            raise KeyError("a mistake")
        return disk.storage(given)


@pytest.fixture
def broken() -> Broken:
    return Broken()


def test_a_check_that_raises_is_told_and_the_others_are_made(broken: Broken) -> None:
    board = broken.board
    broken.breaks = True
    board.look(facts(drift=("Bootstrap is ['auto']",)))
    assert codes(board) == {("part-failed", "check storage"), ("kubo-config-drift", "")}
    (told,) = (c for c in board.conditions if c.code == "part-failed")
    assert told.severity is Severity.ERROR
    assert told.cause == "KeyError: 'a mistake'; it is tried again by itself"


def test_what_it_had_found_stands_until_it_can_be_made_again(broken: Broken) -> None:
    """Nobody knows that it is over: it must not be told so."""
    board, heard = broken.board, list[tuple[str, str]]()
    board.listeners.append(lambda what, condition: heard.append((what, condition.code)))
    board.look(facts(full="5 bytes"))
    broken.breaks = True
    board.look(facts(full=""))
    assert codes(board) == {("disk-floor", ""), ("part-failed", "check storage")}
    broken.breaks = False
    board.look(facts(full=""))
    assert codes(board) == set()
    assert heard[:2] == [("raised", "disk-floor"), ("raised", "part-failed")]
    assert sorted(heard[2:]) == [("cleared", "disk-floor"), ("cleared", "part-failed")]


def test_its_mistake_is_logged_once_with_its_trace(broken: Broken) -> None:
    board = broken.board
    broken.breaks = True
    with capture_logs() as logs:
        for now in range(5):
            board.look(facts(float(now)))
    (line,) = (line for line in logs if line["event"] == "a check failed")
    assert isinstance(line["exc_info"], KeyError)


def test_a_listener_that_raises_keeps_no_other_one_from_hearing_it() -> None:
    board, heard = Looked(), list[str]()

    def deaf(what: str, condition: Condition) -> NoReturn:
        raise KeyError("a mistake")

    board.listeners += [deaf, lambda what, condition: heard.append(condition.code)]
    board.look(facts(full="5 bytes"))
    board.look(facts(2.0, full="5 bytes"))
    assert heard == ["disk-floor"], "and it is told once"
    assert codes(board) == {("disk-floor", "")}


def test_each_part_that_fails_is_a_condition_of_its_own() -> None:
    board = Looked()
    board.look(
        facts(
            faults=(
                Fault("watch", "KeyError: 'a'", meanwhile="the other nodes are not heard"),
                Fault("audit of kubo", "b"),
            )
        )
    )
    assert codes(board) == {("part-failed", "watch"), ("part-failed", "audit of kubo")}
    unsaid = "what it looks at is shown as it was last seen"
    assert [c.title.partition(": ")[2] for c in board.conditions] == [unsaid, "the other nodes are not heard"]


@pytest.fixture
async def components() -> AsyncIterator[tuple[Component, ...]]:
    """Those of a node as the daemon builds it."""
    with short_folder() as folder:
        settings = config.parse(f'[paths]\nstate = "{folder}/s"\nrun = "{folder}/r"\n', "the test")
        files.prepare_folders(settings.state, settings.paths.run, settings.private_sockets)
        node = Node(settings)
        yield node.components
        await close(node)


async def test_of_each_part_of_a_node_it_is_said_what_is_missed_meanwhile(
    components: tuple[Component, ...],
) -> None:
    loops = [loop for component in components for loop in component.loops]
    assert len(loops) > 10
    assert [loop.name for loop in loops if not loop.meanwhile] == []
    assert len({loop.name for loop in loops}) == len(loops), "a fault is told by the name of its part"


async def test_each_fact_that_a_room_has_is_asked_for_and_each_check_has_a_name_of_its_own(
    components: tuple[Component, ...],
) -> None:
    sources = [source for component in components for source in component.facts]
    assert {source.kind for source in sources} == set(KINDS)
    for source in sources:
        assert source.fields.keys() == {field.name for field in dataclasses.fields(source.kind)}
    names = [check.name for component in components for check in component.checks]
    assert len(names) > 10
    assert len(set(names)) == len(names), "what one found would hide what another one did"


def test_the_disk_s_fault_is_not_told_again_of_each_part_that_it_hits() -> None:
    board = Looked()
    hit, other = Fault("watch", "Input/output error", io_error=True), Fault("sweep", "KeyError")
    board.look(facts(faults=(hit, other), unwritable="Input/output error"))
    assert codes(board) == {("state-unwritable", ""), ("part-failed", "sweep")}
    board.look(facts(2.0, faults=(hit,)))
    assert codes(board) == {("part-failed", "watch")}


# -- facts ---------------------------------------------------------------------------------------------------------


def test_a_fact_that_cannot_be_had_stays_as_it_was_and_hides_no_other_one(tmp_path: Path) -> None:
    trash = tmp_path / "trash"
    trash.write_text("two")
    gathering = Gathering(
        [
            FactSource(PinFacts, {"trash": lambda: len(trash.read_text())}),
            FactSource(MeshFacts, {"in_mesh": lambda: True}),
        ]
    )
    assert gathering.facts(1.0).faults == ()
    trash.unlink()
    found = gathering.facts(2.0, (Fault("watch", "a"),))
    assert (found.now, found.of(PinFacts).trash, found.of(MeshFacts).in_mesh) == (2.0, 3, True)
    gone = f"No such file or directory: {trash}"
    assert found.faults == (Fault("watch", "a"), Fault("look at trash", gone, io_error=True))


def test_a_fact_that_the_disk_refuses_is_the_disk_s_fault_whoever_words_it() -> None:
    def fail() -> NoReturn:
        raise MeshError(Code.BAD_STATE, "cannot read the trash") from OSError(errno.EIO, "Input/output error")

    assert Gathering([FactSource(PinFacts, {"trash": fail})]).facts(1.0).faults[0].io_error


def test_one_that_could_never_be_had_is_as_if_all_were_well() -> None:
    def fail() -> NoReturn:
        raise KeyError("a mistake")

    found = Gathering([FactSource(PinFacts, {"full": fail})]).facts(1.0)
    assert (found.of(PinFacts).full, [f.part for f in found.faults]) == ("", ["look at full"])


def test_that_it_cannot_be_had_is_logged_once() -> None:
    def fail() -> NoReturn:
        raise KeyError("a mistake")

    gathering = Gathering([FactSource(PinFacts, {"full": fail})])
    with capture_logs() as logs:
        for _ in range(3):
            gathering.facts(1.0)
    assert len(logs) == 1


# -- the words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (KeyError("Swarm"), "KeyError: 'Swarm'"),
        (TimeoutError(), "TimeoutError"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/var/lib/meshd/node.key"), "Input/output error: /var/lib/meshd/node.key"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (MeshError(Code.BUSY, "cannot start", "it\nruns"), "cannot start: it runs"),
        (ExceptionGroup("g", [ExceptionGroup("h", [ValueError("deep")]), KeyError("b")]), "ValueError: deep"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 288),
    ],
)  # fmt: skip
def test_what_went_wrong_is_one_line(exc: BaseException, text: str) -> None:
    assert one_line(exc) == text
