"""One real kubo, and on request one real cluster, for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.engines.machine import Machine, short_folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine() -> AsyncIterator[Machine]:
    """kubo runs."""
    with short_folder() as folder:
        made = Machine(folder)
        try:
            await made.start_kubo()
            yield made
        finally:
            await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(machine: Machine) -> Machine:
    """kubo, the gate and the cluster run."""
    await machine.start_cluster()
    return machine
