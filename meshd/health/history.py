"""Crash history: how often a service has died of late, which no single moment shows."""

from __future__ import annotations

from collections import deque

from meshd.model import Phase, ServiceState

WINDOW_S = 600.0
CALM_S = 120.0  # so long without a crash, and it counts as well again


class History:
    """Counts crashes. Call `deaths` at each run of the checks."""

    def __init__(self) -> None:
        self._before: dict[str, ServiceState] = {}
        self._deaths: dict[str, deque[float]] = {}

    def deaths(self, now: float, services: dict[str, ServiceState]) -> dict[str, int]:
        """Service -> crashes within the last ten minutes, after it had run; none once it is calm. now: seconds.

        A service that never becomes ready does not count: it is down, and another check reports that.
        """
        for name, state in services.items():
            before = self._before.get(name)
            if before is not None and before.phase is Phase.READY:
                more = max(0, state.restarts - before.restarts)
                self._deaths.setdefault(name, deque()).extend([now] * more)
        self._before = dict(services)
        for times in self._deaths.values():
            while times and now - times[0] > WINDOW_S:
                times.popleft()
            if times and now - times[-1] > CALM_S:
                times.clear()
        return {name: len(times) for name, times in self._deaths.items() if times}
