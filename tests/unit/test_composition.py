"""The list of the rooms: each is handed only what lies below it, and says of itself all that the daemon must know."""

from __future__ import annotations

import ast
from pathlib import Path

import meshd.node
from tests.docs.test_architecture import floors

SOURCE = Path(meshd.node.__file__).read_text()


class Composition(ast.NodeVisitor):
    """`wrong`: what node.py hands to a room from one above it, or hides in a lambda."""

    def __init__(self, source: str) -> None:
        self._floor = {room: number for number, rooms in enumerate(floors()) for room in rooms}
        self._imported: dict[str, str] = {}  # local name -> room
        self._made: dict[str, str] = {}  # attribute of the node -> room
        self.wrong: list[str] = []
        self.visit(ast.parse(source))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parts = (node.module or "").split(".")
        for name in node.names:
            room = parts[1] if len(parts) > 1 else name.name
            if parts[0] == "meshd":
                self._imported[name.asname or name.name] = room

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        room = self._room(node.value)
        for target in node.targets:
            if not isinstance(target, ast.Attribute) or not room:
                continue
            if isinstance(target.value, ast.Name):
                self._made[target.attr] = room
            elif self._floor[room] < self._floor[self._room(target)]:
                self.wrong.append(f"{ast.unparse(target)} is {ast.unparse(node.value)}")

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.wrong.append(ast.unparse(node))

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        room = self._room(node)
        # A component is what a room says of itself to the daemon, which is above all of them.
        if not room or room == "component":
            return
        for given in [*node.args, *(keyword.value for keyword in node.keywords)]:
            above = self._room(given)
            if above and self._floor[above] < self._floor[room]:
                self.wrong.append(f"{ast.unparse(node.func)} gets {ast.unparse(given)}")

    def _room(self, node: ast.expr) -> str:
        """Of what an expression is, or is called on; "" where it is of no room."""
        while isinstance(node, ast.Call | ast.Attribute):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                return self._made.get(node.attr, "")
            node = node.func if isinstance(node, ast.Call) else node.value
        return self._imported.get(node.id, "") if isinstance(node, ast.Name) else ""


def test_each_room_is_handed_only_what_lies_below_it() -> None:
    assert Composition(SOURCE).wrong == []


def test_what_is_handed_up_is_seen() -> None:
    """As a value, a bound method, hidden in a lambda, or put there once all is built."""

    def wrong(line: str) -> list[str]:
        last = "        self.components = self._components()\n"
        assert last in SOURCE
        return Composition(SOURCE.replace(last, f"        {line}\n{last}")).wrong

    assert wrong("self.more = Mesh(config, self.control)") == ["Mesh gets self.control"]
    assert wrong("self.mesh.heartbeats.subscribe(self.reconciler.wake)") == [
        "self.mesh.heartbeats.subscribe gets self.reconciler.wake"
    ]
    assert wrong("self.mesh.admin.ask(lambda: self.reconciler.wake)") == ["lambda: self.reconciler.wake"]
    assert wrong("self.pins.storage.broken = self.health.audit.broken") == [
        "self.pins.storage.broken is self.health.audit.broken"
    ]
    assert wrong("self.control.more(self.mesh.store)") == []


def test_the_list_of_the_rooms_is_short() -> None:
    assert len(SOURCE.splitlines()) < 150
