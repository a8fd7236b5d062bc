"""Meshes for the tests: one that lives all the while for those that do no lasting harm, fresh ones for the others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any

import psutil
import pytest

from tests.guards import GRACE_S, Footprint, watchdog
from tests.mesh.asking import until
from tests.mesh.nodes import ENGINES, NAMES, RUNNING, Mesh, Node, Subnet
from tests.mesh.sampler import Sampler

MakeMesh = Callable[..., Mesh]
MakeNode = Callable[..., Node]


def _left_since(before: Footprint) -> list[str]:
    """As tests/guards.py sees it, but for what nodes that still run have started: they restart their services."""
    now = Footprint.now()
    theirs: set[psutil.Process] = set()
    for node in list(RUNNING):
        with contextlib.suppress(psutil.Error):
            if node.process is not None:
                process = psutil.Process(node.process.pid)
                theirs |= {process, *process.children(recursive=True)}
    return dataclasses.replace(now, children=now.children - theirs).left_since(before)


def _look(before: Footprint) -> None:
    try:
        until(lambda: not _left_since(before), "nothing is left behind", GRACE_S, every=0.02)
    except AssertionError:
        pytest.fail("left behind: " + "; ".join(_left_since(before)), pytrace=False)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing() -> Iterator[None]:
    """In place of the one in tests/guards.py, which does not know the mesh that outlives a module."""
    before = Footprint.now()
    yield
    _look(before)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """In place of the one in tests/guards.py, which does not know the mesh that outlives a test."""
    before = Footprint.now()
    watchdog.reports.clear()
    yield
    _look(before)
    if watchdog.reports:
        pytest.fail("the event loop was held up: " + "\n".join(watchdog.reports), pytrace=False)


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
    """Whatever a test is about: no socket of any node may have been where none may be while it ran."""
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


@pytest.fixture(scope="module")
def make_nodes(subnet: Subnet, sampler: Sampler) -> Iterator[MakeNode]:
    """Nodes that live until the module ends, not started."""
    made: list[Node] = []

    def make(name: str = "attic", **options: Any) -> Node:
        node = Node(name, options.pop("address", None) or subnet.address(), **options)
        made.append(node)
        return node

    yield make
    Mesh(made).close()


@pytest.fixture
def make_node(subnet: Subnet, sampler: Sampler) -> Iterator[MakeNode]:
    """Nodes for one test, not started."""
    made: list[Node] = []

    def make(name: str = "attic", **options: Any) -> Node:
        node = Node(name, options.pop("address", None) or subnet.address(), **options)
        made.append(node)
        return node

    yield make
    Mesh(made).close()


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
