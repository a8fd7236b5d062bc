"""Registries of operations, as the starts of a daemon find them; each is ended after its test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from meshd.operations.registry import Operations

NOW = 1_800_000_000.0

MakeOperations = Callable[..., Awaitable[Operations]]


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "operations.db"


@pytest.fixture
async def start(path: Path, clock: Clock) -> AsyncIterator[MakeOperations]:
    """start(): a registry over the same file as the one before, which ends in order."""
    running: list[Operations] = []

    async def end() -> None:
        while running:
            operations = running.pop()
            await operations.stop()
            await operations.close()

    async def begin(file: Path = path) -> Operations:
        await end()
        operations = Operations(file, now=clock)
        await operations.open()
        running.append(operations)
        return operations

    yield begin
    await end()


@pytest.fixture
async def operations(start: MakeOperations) -> Operations:
    return await start()
