"""Meshes for the tests: one that lives all the while for those that do no lasting harm, fresh ones for the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.guards import lives_on
from tests.mesh.nodes import ENGINES, NAMES, RUNNING, Mesh, Node, Subnet
from tests.mesh.sampler import Sampler

MakeMesh = Callable[..., Mesh]
MakeNode = Callable[..., Node]


lives_on.append(lambda: [node.process.pid for node in RUNNING if node.process is not None])


@pytest.fixture(scope="session")
def subnet() -> Iterator[Subnet]:
    assert (ENGINES / "ipfs").exists(), f"there is no {ENGINES / 'ipfs'}; type: make setup"
    found = Subnet()
    yield found
    found.close()


@pytest.fixture(scope="session")
def sampler() -> Iterator[Sampler]:
    """Looks from before the first start until after the last stop."""
    watching = Sampler(lambda: RUNNING)
    watching.start()
    yield watching
    watching.stop()


@pytest.fixture(autouse=True)
def nothing_off_the_overlay(sampler: Sampler) -> Iterator[None]:
    """Fail any test during which a node had a socket off the overlay."""
    before = len(sampler.findings)
    yield
    found = sampler.findings[before:]
    assert not found, "sockets off the overlay:\n" + "\n".join(found)


@pytest.fixture(scope="session")
def mesh(subnet: Subnet, sampler: Sampler) -> Iterator[Mesh]:
    """Three nodes for tests that leave nothing behind but entries with names of their own."""
    standing = Mesh([Node(name, subnet.address()) for name in NAMES[:3]])
    try:
        yield standing.build()
    finally:
        standing.close()


@contextlib.contextmanager
def _making(subnet: Subnet) -> Iterator[MakeNode]:
    made: list[Node] = []

    def make(name: str = "attic", **options: Any) -> Node:
        node = Node(name, options.pop("address", None) or subnet.address(), **options)
        made.append(node)
        return node

    yield make
    Mesh(made).close()


@pytest.fixture(scope="module")
def make_nodes(subnet: Subnet, sampler: Sampler) -> Iterator[MakeNode]:
    """Nodes that live until the module ends, not started."""
    with _making(subnet) as make:
        yield make


@pytest.fixture
def make_node(subnet: Subnet, sampler: Sampler) -> Iterator[MakeNode]:
    """Nodes for one test, not started."""
    with _making(subnet) as make:
        yield make


@pytest.fixture
def make_mesh(make_node: MakeNode) -> MakeMesh:
    """A mesh for one test. options: of every node; each: of the nodes one by one."""

    def make(count: int = 3, each: list[dict[str, Any]] | None = None, **options: Any) -> Mesh:
        more = each or [{}] * count
        return Mesh([make_node(name, **options, **more[i]) for i, name in enumerate(NAMES[:count])]).build()

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of each node's log."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {node}", node.tail()) for node in RUNNING]
    return report
