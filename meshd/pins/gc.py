"""kubo's garbage collection: after something was unpinned, and only while no upload is open or entry being made."""

from __future__ import annotations

import asyncio

import structlog

from meshd.errors import MeshError
from meshd.pins.engine_api import KuboApi
from meshd.pins.uploads import Uploads

_LOG = structlog.get_logger(part="garbage")


class Garbage:
    """`request` a collection; `run` makes them one at a time, and merges requests."""

    def __init__(self, kubo: KuboApi, uploads: Uploads) -> None:
        self._kubo = kubo
        self._uploads = uploads
        self._wanted = asyncio.Event()

    def request(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        """Collect on request, for as long as the daemon lives."""
        while True:
            await self._wanted.wait()
            try:
                async with self._uploads.collection():
                    self._wanted.clear()
                    count = await self._kubo.collect_garbage()
                _LOG.info("garbage collected", blocks=count)
            except (MeshError, ValueError) as exc:
                _LOG.warning("cannot collect garbage", error=str(exc))
                self._wanted.set()
                await asyncio.sleep(30)
