"""A disk whose sync takes until the test lets it go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from meshd import files


class SlowDisk(files.Disk):
    """Its sync takes until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.syncs = 0
        self.began = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._go = threading.Semaphore(0)
        self.errors: list[OSError] = []  # of the next syncs

    def go_on(self, times: int = 1) -> None:
        self._go.release(times)

    def _sync_all(self) -> None:
        self.syncs += 1
        self._loop.call_soon_threadsafe(self.began.set)
        if not self._go.acquire(timeout=30):
            raise TimeoutError
        if self.errors:
            raise self.errors.pop()
        super()._sync_all()


@contextlib.contextmanager
def slow(path: Path) -> Iterator[SlowDisk]:
    disk = SlowDisk(path)
    yield disk
    disk.go_on(100)
