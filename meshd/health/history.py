"""What one moment cannot tell: how often a service died of late."""

from __future__ import annotations

from collections import deque

from meshd.model import Phase, ServiceState

WINDOW_S = 600.0
CALM_S = 120.0  # so long without a death, and it counts as well again


class History:
    """Looks at the services as often as the board does."""

    def __init__(self) -> None:
        self._before: dict[str, ServiceState] = {}
        self._deaths: dict[str, deque[float]] = {}

    def deaths(self, now: float, services: dict[str, ServiceState]) -> dict[str, int]:
        """Service -> how often it died in the last ten minutes after it had run; none where it is calm since. `now`: seconds.

        One that never gets ready is not counted: it is down, and that is told already.
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
