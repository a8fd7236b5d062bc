"""Work for operations, that the test ends; and what a start would find if the power went off now."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from meshd import wire
from meshd.errors import MeshError
from meshd.operations.registry import Operation, Operations
from meshd.operations.store import OperationStore

ENTRY = wire.EntryEvent(cid="bafyentry", name="minutes.pdf", wanted=3)
LEFT = wire.LeftEvent(mesh="archive")


class Held:
    """Says that it has begun, and goes on when it is let: then it ends so."""

    def __init__(self, ends: wire.Wire | Exception = LEFT, says: tuple[wire.Wire, ...] = ()) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.undone = False
        self._ends = ends
        self._says = says

    async def __call__(self, operation: Operation) -> None:
        try:
            for event in self._says:
                await operation.emit(event)
            self.begun.set()
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.undone = True
            raise
        if isinstance(self._ends, Exception):
            raise self._ends
        await operation.emit(self._ends)


async def ended(operation: Operation) -> list[wire.Wire]:
    """All that it told."""
    return [event async for event in operation.follow()]


async def told(operations: Operations, id_: str) -> list[dict[str, Any]]:
    """What a client is told that follows it by its id."""
    return [event.model_dump() async for event in operations.follow(id_)]


def problem(event: wire.Wire) -> MeshError:
    assert isinstance(event, wire.ErrorEvent)
    return MeshError.from_problem(event.problem)


def on_the_disk(path: Path, folder: Path) -> dict[str, str]:
    """Id and state of what a power cut at this moment would leave."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder / file.name)
    store = OperationStore(folder / path.name)
    try:
        return {record.id: record.state for record in store.load()}
    finally:
        store.close()
