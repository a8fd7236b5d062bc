"""The nodes of tests/mesh, and the watch over their sockets."""

from __future__ import annotations

from tests.mesh.conftest import (
    make_node,
    make_nodes,
    nothing_off_the_overlay,
    pytest_runtest_makereport,
    sampler,
    subnet,
)

__all__ = [
    "make_node",
    "make_nodes",
    "nothing_off_the_overlay",
    "pytest_runtest_makereport",
    "sampler",
    "subnet",
]
