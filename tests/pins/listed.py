"""A pinset without a cluster: an index, made anew of what the test says each time that it is brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TypeVar

from meshd.model import Pin
from meshd.pins.index import CatalogueIndex

T = TypeVar("T")


class Listed:
    """Pinset, as those who ask it see it. pins: what the list has at this moment."""

    def __init__(self, pins: Callable[[], Iterable[Pin]]) -> None:
        self._pins = pins
        self._index = CatalogueIndex(None)
        self.version = 0

    async def refresh(self, *, anew: bool = False) -> bool:
        now = {p.cid: p for p in self._pins()}
        before = [p.cid for part in self._parts() for p in part]
        self.version += self._index.apply({**dict.fromkeys(before), **now})
        return True

    async def reread(self) -> None:
        await self.refresh()

    async def query(self, question: Callable[[CatalogueIndex], T]) -> T:
        await asyncio.sleep(0)
        return question(self._index)

    async def ask(self, question: Callable[[CatalogueIndex], T], *, anew: bool = False) -> T:
        await self.refresh(anew=anew)
        return await self.query(question)

    async def each_part(self) -> AsyncGenerator[list[Pin]]:
        for part in self._parts():
            yield part

    def _parts(self) -> Iterable[list[Pin]]:
        after = ""
        while part := self._index.part(after):
            yield part
            after = part[-1].cid

    def close(self) -> None:
        self._index.close()
