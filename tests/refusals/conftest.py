"""The nodes of tests/mesh, and what guards them."""

from __future__ import annotations

from tests.mesh.conftest import (
    _leaves_nothing,
    _module_leaves_nothing,
    make_node,
    make_nodes,
    nothing_off_the_overlay,
    pytest_runtest_makereport,
    sampler,
    subnet,
)

__all__ = [
    "_leaves_nothing",
    "_module_leaves_nothing",
    "make_node",
    "make_nodes",
    "nothing_off_the_overlay",
    "pytest_runtest_makereport",
    "sampler",
    "subnet",
]
