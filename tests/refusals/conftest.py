"""The nodes of tests/mesh, and the watch over their sockets."""

from __future__ import annotations

import pytest

from tests.mesh.conftest import (
    MakeNode,
    make_node,
    make_nodes,
    nothing_off_the_overlay,
    pytest_runtest_makereport,
    sampler,
    subnet,
)
from tests.mesh.nodes import Node

__all__ = [
    "make_node",
    "make_nodes",
    "nothing_off_the_overlay",
    "pytest_runtest_makereport",
    "sampler",
    "subnet",
]


@pytest.fixture(scope="module")
def node(make_nodes: MakeNode) -> Node:
    """One node in a mesh of its own, for tests that leave nothing behind."""
    made = make_nodes(replicas=1)
    made.start().do("init", "--name", "archive")
    return made.wait_ready()
