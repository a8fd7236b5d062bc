"""Spreads the tests over several processes (pytest-xdist). A pytest plugin; does nothing where one process runs them all.

A file's tests stay together in one worker, since they share what its fixtures start. Files that would meet, as they use
one name or address of this machine, stay together as well. What takes longest begins first, so that no worker is left
alone with it at the end.
"""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/docs/test_tutorial.py": "tutorial",  # both use the addresses of the tutorial
    "tests/docs/test_demo.py": "tutorial",
}
SLOW_FIRST = (
    "tests/system/test_releases",
    "tests/system/",
    "tests/docs/test_",
    "tests/mesh/",
    "tests/zerotier/",
    "tests/engines/",
    "tests/refusals/",
    "tests/faults/",
    "tests/unit/test_service_manager.py",
    "tests/unit/test_encrypt_secrets.py",
)


def group_of(nodeid: str) -> str:
    """What is given to a worker as one piece: the test's file, or the name of a group of files."""
    file = nodeid.partition("::")[0]
    return next((group for start, group in TOGETHER.items() if file.startswith(start)), file)


def rank_of(nodeid: str) -> int:
    """The lower, the earlier it begins."""
    return next((n for n, start in enumerate(SLOW_FIRST) if nodeid.startswith(start)), len(SLOW_FIRST))


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Hands out groups in the order of collection."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = (
            False  # xdist would begin with the files of most tests: the quickest ones
        )
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for a program rather than compute, so there are more of them at a time than cores."""
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank_of(item.nodeid))
