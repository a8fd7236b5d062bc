"""The architecture page says what the code is: its rooms, its arrows, and where each verb is."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

import meshctl.cli
from scripts import reference
from tests.docs.pages import ARCHITECTURE, ROOT, blocks

Arrows = dict[str, set[str]]


def _block(language: str) -> list[str]:
    found = [lines for _, name, lines in blocks(ARCHITECTURE) if name == language]
    assert len(found) == 1, f"one block of {language}"
    return found[0]


def drawn(lines: list[str]) -> Arrows:
    """`room -> room room`, one room a line."""
    arrows: Arrows = {}
    for line in lines:
        room, arrow, others = line.partition("->")
        assert arrow, line
        arrows[room.strip()] = set(others.split())
    return arrows


def imported() -> Arrows:
    """The rooms of the daemon, and from which others each imports."""
    graph = grimp.build_graph("meshd")
    arrows: Arrows = {}
    for module in graph.modules - {"meshd"}:
        room = module.split(".")[1]
        others = {
            other.split(".")[1] for other in graph.find_modules_directly_imported_by(module) if "." in other
        }
        arrows[room] = arrows.get(room, set()) | (others - {room})
    return arrows


def test_the_arrows_are_the_imports() -> None:
    assert drawn(_block("rooms")) == imported()


def test_an_arrow_that_is_not_there_is_seen() -> None:
    lines = _block("rooms")
    assert (
        drawn([line.replace("exposition -> pins wire", "exposition -> pins wire kubo") for line in lines])
        != imported()
    )
    assert drawn(lines[1:]) != imported()


def floors() -> list[set[str]]:
    """The rooms of the picture, floor by floor."""
    text = "\n".join(_block("picture"))
    return [set(re.findall(r"\[(\w+)\]", line)) for line in text.splitlines() if "[" in line]


def test_every_arrow_of_the_picture_points_down() -> None:
    levels = floors()
    arrows = imported()
    assert set().union(*levels) == set(arrows)
    assert sum(map(len, levels)) == len(arrows), "each room is drawn once"
    floor_of = {room: number for number, rooms in enumerate(levels) for room in rooms}
    wrong = [(a, b) for a, others in arrows.items() for b in others if floor_of[a] > floor_of[b]]
    assert not wrong


def test_the_picture_has_the_floors_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["id"] == "rooms")
    assert floors() == [set(re.findall(r"\w+", layer)) for layer in layers]


# -- the table of verbs --------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One verb, as the table has it. Parts are `file name`."""

    verb: str
    command: str
    routes: list[str]
    handlers: list[str]
    rooms: list[str]


def _rows() -> list[Row]:
    lines = ARCHITECTURE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| verb |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        rows.append(Row(cells[0][0], cells[1][0], *cells[2:]))
    return rows


ROWS = _rows()


def defines(part: str) -> bool:
    """Whether `meshd/file.py Class.method` is there."""
    file, _, name = part.partition(" ")
    if not (ROOT / file).is_file():
        return False
    body: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for step in name.split("."):
        found = [node for node in body if getattr(node, "name", "") == step]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def test_the_table_has_every_verb() -> None:
    assert sorted(row.verb for row in ROWS) == sorted(
        v for group in meshctl.cli.VERBS.values() for v in group
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.verb)
def test_a_verb_is_where_the_table_says(row: Row) -> None:
    command = ROOT / row.command
    assert command.stem == row.verb
    docstring = ast.get_docstring(ast.parse(command.read_text())) or ""
    table = {f"{route.method} {route.path}": route for route in reference.routes()}
    assert len(row.routes) == len(row.handlers) > 0
    for route, handler in zip(row.routes, row.handlers, strict=True):
        path = route.partition(" ")[2]
        found = table[route].handler
        file = Path(found.__code__.co_filename).relative_to(ROOT)
        assert handler == f"{file} {found.__qualname__}"
        assert path.split("{")[0].rstrip("/") in docstring or row.verb == "version", f"{command}: {docstring}"
    assert row.rooms
    for part in row.rooms:
        assert part.startswith("meshd/"), part
        assert defines(part), part


def test_what_is_not_defined_is_seen() -> None:
    assert defines("meshd/pins/remove.py Remover.remove")
    assert not defines("meshd/pins/remove.py Remover.delete")
    assert not defines("meshd/pins/erase.py Remover.remove")
