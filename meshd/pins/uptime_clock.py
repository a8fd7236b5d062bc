"""The clock of the trash: accumulated uptime of this machine, in seconds.

A wall clock would not do. A board without a battery starts in the past, and jumps by years when it finds a time
server: the retention time of everything in the trash would end at once. So only observed time counts. While the
machine is off the clock stands still, which errs on the safe side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # changes at each boot: proc(5)


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time within one boot. uptime: seconds since the boot, suspended ones included."""

    boot: str
    uptime: float


def moment() -> Moment:
    """The current moment. Raises OSError where the kernel does not provide it."""
    return Moment(_BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))


class UptimeClock:
    """A clock that continues from `seconds`, its value at the moment `since`; `since` is None for a new one."""

    def __init__(self, seconds: float, since: Moment | None, read: Callable[[], Moment] = moment) -> None:
        self._read = read
        self._base = seconds
        self._since = read()
        if since is not None and since.boot == self._since.boot:
            self._base += max(0.0, self._since.uptime - since.uptime)

    def now(self) -> tuple[float, Moment]:
        """The seconds, and the moment of that reading: store both for the clock of the next start."""
        at = self._read()
        return self._base + max(0.0, at.uptime - self._since.uptime), at
