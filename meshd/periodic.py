"""The guard of all long-running tasks: a task that raises is reported as a fault, and run again after a back-off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from meshd.errors import MeshError, leaf, one_line
from meshd.model import Fault

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 30.0
WELL_AGAIN_S = 30.0  # it must succeed for so long until its fault is forgotten
PATIENCE_S = 120.0  # work that waits in vain (for an engine, say) is no fault before
_LONGEST_S = 60.0
_LOG = structlog.get_logger(part="daemon")

Work = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Part:
    """A part that has failed. Times are monotonic seconds. well_since: None while it fails."""

    failing_since: float
    meanwhile: str = ""
    error: str = ""
    told_after_s: float = 0.0
    io_error: bool = False
    failures: int = 0
    well_since: float | None = None


class TaskGuard:
    """Runs parts of the daemon and keeps their `faults`: those that fail, or failed a short while ago."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, _Part] = {}

    def faults(self) -> tuple[Fault, ...]:
        """The faults that a person should know of."""
        now = self._clock()
        return tuple(
            Fault(name, part.error, part.io_error, part.meanwhile)
            for name, part in self._failed.items()
            if not self._over(part, now) and now - part.failing_since >= part.told_after_s
        )

    def failing_s(self, name: str) -> float:
        """Seconds for which every attempt at it has failed; 0 where the last one succeeded."""
        part = self._failed.get(name)
        return self._clock() - part.failing_since if part and part.well_since is None else 0.0

    async def attempt(
        self, name: str, work: Work, *, patience_s: float = PATIENCE_S, meanwhile: str = ""
    ) -> bool:
        """Run `work` once; whether it succeeded. Raises nothing but CancelledError.

        patience_s: for so long a MeshError, which says itself what it waits for, is no fault. meanwhile: see `Fault`.
        """
        try:
            await work()
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not this task was cancelled, but something that it awaited.
            self._note(name, exc, 0.0, meanwhile)
        except Exception as exc:  # noqa: BLE001 - the one guard: neither a bug nor a dead disk may end the node
            self._note(name, exc, patience_s if isinstance(exc, MeshError) else 0.0, meanwhile)
        else:
            self._well(name)
            return True
        return False

    async def keep_running(self, name: str, loop: Work, *, meanwhile: str = "") -> None:
        """Run an endless loop, and start it again after a back-off where it raises or returns."""

        async def run() -> None:
            part = self._failed.get(name)
            if part is not None:
                part.well_since = self._clock()  # `_note` takes it back if it fails again
            await loop()
            raise RuntimeError("it has ended, which it never should")

        while True:
            began = self._clock()
            await self.attempt(name, run, patience_s=0.0, meanwhile=meanwhile)
            part = self._failed[name]
            if self._clock() - began > WELL_AGAIN_S:
                part.failures = 1
            await asyncio.sleep(min(BACKOFF_FIRST_S * 2.0 ** min(part.failures - 1, 16), BACKOFF_MOST_S))

    async def every(
        self, name: str, seconds: float, work: Work, *, share: float = 1.0, meanwhile: str = ""
    ) -> None:
        """Repeat `work` with pauses of `seconds`, longer where it would take more than `share` of the time."""
        while True:
            began = time.monotonic()
            went_well = await self.attempt(name, work, meanwhile=meanwhile)
            # The duration of a failed run counts for nothing: it may have waited for an engine that hangs.
            took = time.monotonic() - began if went_well else 0.0
            await asyncio.sleep(max(seconds, min(took / share, _LONGEST_S)))

    def _over(self, part: _Part, now: float) -> bool:
        return part.well_since is not None and now - part.well_since >= WELL_AGAIN_S

    def _well(self, name: str) -> None:
        part = self._failed.get(name)
        if part is not None and part.well_since is None:
            part.well_since = self._clock()

    def _note(self, name: str, exc: BaseException, told_after_s: float, meanwhile: str) -> None:
        now, error, part = self._clock(), one_line(exc), self._failed.get(name)
        if part is None or self._over(part, now):
            part = _Part(now, meanwhile)
        if part.well_since is not None:
            part.failing_since, part.well_since = now, None
        if error != part.error:  # log the same fault once
            part.error, part.told_after_s, part.io_error = error, told_after_s, is_io_error(exc)
            if isinstance(exc, MeshError):
                _LOG.warning("cannot finish a round", failed=name, error=error)
            else:
                _LOG.error("a part failed", failed=name, error=error, exc_info=exc)
        part.failures += 1
        self._failed[name] = part


def is_io_error(exc: BaseException) -> bool:
    """Whether the kernel refused a file or the disk, also as the cause of a MeshError."""
    found = leaf(exc)
    return isinstance(found, OSError) or isinstance(found.__cause__, OSError)
