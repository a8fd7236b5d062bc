"""The events of one operation: a bounded log with any number of followers, none of whom holds up the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable

from meshd import wire

EVENTS_MOST = 500
"""Events that are kept of one operation: more than a pin on fifty nodes has."""


class EventLog:
    """Who follows late gets what was kept, then what comes, and last of all the event that it ended with.

    An event that renews an earlier one takes its place, so a follower that is slow misses only what is out of date.
    """

    def __init__(self, most: int = EVENTS_MOST) -> None:
        self._most = most
        self._kept: dict[int, wire.Wire] = {}  # number -> event, in their order
        self._newest: dict[Hashable, int] = {}  # what can be renewed -> number of the event that says it now
        self._last: wire.Wire | None = None
        self._number = 0
        self._news = asyncio.Event()

    def append(self, event: wire.Wire) -> None:
        """One more; the oldest goes where there are too many. Waits for nobody."""
        self._number += 1
        renews = _renews(event)
        if renews is not None:
            self._kept.pop(self._newest.get(renews, 0), None)
            self._newest[renews] = self._number
        self._kept[self._number] = event
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        self._wake()

    def close(self, last: wire.Wire) -> None:
        """It ended so; nothing comes after that."""
        self._last = last
        self._wake()

    async def follow(self) -> AsyncGenerator[wire.Wire, None]:
        """All that is kept and all that comes, until the last event."""
        seen = 0
        while True:
            news, last = self._news, self._last
            for number, event in [(n, e) for n, e in self._kept.items() if n > seen]:
                if number in self._kept:  # else it was renewed or dropped while the follower was busy
                    seen = number
                    yield event
            if self._news is not news:
                continue
            if last is not None:
                yield last
                return
            await news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _renews(event: wire.Wire) -> Hashable | None:
    """What an event says anew each time it comes; None for one that stands for itself. Pure."""
    if isinstance(event, wire.ProgressEvent):
        return "progress"
    if isinstance(event, wire.FetchingEvent):
        return ("fetching", event.node)
    if isinstance(event, wire.StepEvent) and event.key:
        return ("step", event.key)
    return None
