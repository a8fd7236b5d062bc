"""Three nodes, of which the first one's room `pins` is under test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from meshd.mesh.identity import Identity
from tests.engines.machine import short_folder
from tests.mesh_room.conftest import clock, make_node
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic

__all__ = ["clock", "make_node"]

MakeAttic = Callable[..., Awaitable[Attic]]


@pytest.fixture
async def nodes(make_node: Callable[..., Node], tmp_path: Path) -> tuple[Node, Node, Node]:
    """attic, barn and cellar, in one mesh; each knows the others. Of all who can be reached attic is elected."""
    folders = [tmp_path / f"machine{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
    folders.sort(key=lambda folder: Identity.load_or_create(folder).fingerprint)
    attic, barn, cellar = (
        make_node(*each) for each in zip(("attic", "barn", "cellar"), folders, strict=True)
    )
    for node in (attic, barn, cellar):
        await node.start()
    await attic.found()
    await barn.join(await attic.invite())
    await cellar.join(await attic.invite())
    await barn.store.merge(attic.store.roster())
    return attic, barn, cellar


@pytest.fixture
async def make_attic(nodes: tuple[Node, Node, Node]) -> AsyncIterator[MakeAttic]:
    """make_attic(trash="1s"): this node, with that in [pins]."""
    made: list[Attic] = []
    with short_folder() as folder:

        async def make(**settings: str) -> Attic:
            made.append(Attic(folder, nodes[0], list(nodes[1:]), **settings))
            await made[-1].start()
            return made[-1]

        yield make
        for attic in made:
            await attic.stop()


@pytest.fixture
async def attic(make_attic: MakeAttic) -> Attic:
    return await make_attic()


@pytest.fixture
def barn(nodes: tuple[Node, Node, Node]) -> Node:
    return nodes[1]


@pytest.fixture
def cellar(nodes: tuple[Node, Node, Node]) -> Node:
    return nodes[2]
