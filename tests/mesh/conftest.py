"""Meshes for the tests: one that lives all the while for those that do no lasting harm, fresh ones for the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
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


class Standing:
    """Three nodes that are built when a file's tests ask for them, and live on while the next file's ask for them too."""

    def __init__(self, subnet: Subnet) -> None:
        self._subnet = subnet
        self._mesh: Mesh | None = None

    def built(self) -> Mesh:
        if self._mesh is None:
            self._mesh = Mesh([Node(name, self._subnet.address()) for name in NAMES[:3]])
            try:
                self._mesh.build()
            except BaseException:  # or the next file would get half a mesh
                self.close()
                raise
        return self._mesh

    def close(self) -> None:
        mesh, self._mesh = self._mesh, None
        if mesh is not None:
            mesh.close()


_STANDING: list[Standing] = []
_FILES: set[Path] = set()  # whose tests ask for it


@pytest.fixture(scope="session")
def _standing(subnet: Subnet, sampler: Sampler) -> Iterator[Standing]:
    _STANDING.append(Standing(subnet))
    yield _STANDING[0]
    _STANDING.pop().close()


@pytest.fixture(scope="module")
def mesh(_standing: Standing) -> Mesh:
    """Three nodes for tests that leave nothing behind but entries with names of their own."""
    return _standing.built()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that ask for the standing mesh come one after the other: it need not stand, and take its part of the
    processor, while others run."""
    here = [number for number, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    found = [items[number] for number in here]
    _FILES.update(item.path for item in found if "mesh" in getattr(item, "fixturenames", ()))
    for number, item in zip(here, sorted(found, key=lambda item: item.path not in _FILES), strict=True):
        items[number] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    yield
    if _STANDING and item.path in _FILES and (nextitem is None or nextitem.path not in _FILES):
        _STANDING[0].close()


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
