"""The daemon's notifications to systemd, and when it sends them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from meshd.systemd.notify import Notifier

_FED_PER_DEADLINE = 4  # so that a late one does not cause a restart


class ServiceManager:
    """systemd as the daemon sees it. Every call is cheap, and does nothing where systemd asked for no notification."""

    def __init__(
        self, notifier: Notifier | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """notifier: None for no service manager. clock: monotonic seconds."""
        self._notifier = notifier or Notifier({})
        self._clock = clock
        self._stopping = False
        self._status = ""
        self._fed_at = float("-inf")

    @property
    def present(self) -> bool:
        return self._notifier.present

    def ready(self) -> None:
        """Report that the control socket serves. The mesh may be far from ready: `status` says what it waits for."""
        self._notifier.tell(READY=1)

    def status(self, text: str) -> None:
        """Set the line for `systemctl status`; sent when it changes."""
        if text != self._status and not self._stopping:
            self._status = text
            self._notifier.tell(STATUS=text)

    def passed(self) -> None:
        """Feed the watchdog, only after a pass that decided: a loop that hangs, or decides nothing, starves it."""
        if not self._notifier.watchdog_s:
            return
        now = self._clock()
        if now - self._fed_at >= self._notifier.watchdog_s / _FED_PER_DEADLINE:
            self._fed_at = now
            self._notifier.tell(WATCHDOG=1)

    @contextlib.contextmanager
    def reload(self) -> Iterator[None]:
        """Reload the configuration inside, after SIGHUP: `systemctl reload` waits for its end."""
        self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            yield
        finally:
            self._notifier.tell(READY=1, STATUS=self._status)

    def needs(self, seconds: float) -> None:
        """Extend systemd's time-out: the start or stop under way may take so many seconds from now on."""
        self._notifier.tell(EXTEND_TIMEOUT_USEC=int(seconds * 1e6))

    def stopping(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._notifier.tell(STOPPING=1, STATUS="stopping kubo and the cluster")
