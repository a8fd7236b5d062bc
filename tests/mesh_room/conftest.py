"""Nodes for the tests of the mesh: made on demand, stopped at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.mesh_room.nodes import Clock, Node


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make_node(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(name: str = "", folder: Path | None = None) -> Node:
        number = len(made) + 1
        called = name or f"node{number}"
        node = Node(folder or tmp_path / called, called, f"127.0.0.{number}", clock)
        made.append(node)
        return node

    yield make
    for node in made:
        await node.stop()


@pytest.fixture
async def pair(make_node: Callable[..., Node]) -> tuple[Node, Node]:
    """attic founded a mesh, barn joined it."""
    attic, barn = make_node("attic"), make_node("barn")
    await attic.start()
    await barn.start()
    await attic.found()
    await barn.join(await attic.invite())
    return attic, barn
