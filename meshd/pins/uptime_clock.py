"""Seconds that this machine has run, counted on from start to start: what the trash ages by.

A wall clock will not do. A board without a battery starts in the past, and is set right by years when it finds a time
server: all that was removed would be over at once. So only time that was really seen to pass counts; while the machine
is off it stands still, which errs on the side of keeping.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the machine: proc(5)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in one run of the machine. uptime: seconds since it started, suspended ones with them."""

    boot: str
    uptime: float


def moment() -> Moment:
    """Now. Raises OSError where the kernel does not tell."""
    return Moment(_BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))


class UptimeClock:
    """Goes on from `seconds`, which it showed at the moment `since`; `since` is None for one that begins."""

    def __init__(self, seconds: float, since: Moment | None, read: Callable[[], Moment] = moment) -> None:
        self._read = read
        self._base = seconds
        self._since = read()
        if since is not None and since.boot == self._since.boot:
            self._base += max(0.0, self._since.uptime - since.uptime)

    def now(self) -> tuple[float, Moment]:
        """The seconds, and the moment at which it showed them: to be kept, and given to the next one."""
        at = self._read()
        return self._base + max(0.0, at.uptime - self._since.uptime), at
