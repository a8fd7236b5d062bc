"""The events of one operation: a bounded log with any number of followers, none of which blocks the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable

from meshd import wire

EVENTS_MOST = 500
"""The most events to keep of one operation: more than a pin on fifty nodes has."""


class EventLog:
    """A late follower gets the kept events, then the new ones, and last the event that the operation ended with.

    An event that updates an earlier one replaces it, so that a slow follower misses only what is out of date.
    """

    def __init__(self, most: int = EVENTS_MOST) -> None:
        self._most = most
        self._kept: dict[int, wire.Wire] = {}  # number -> event, in order
        self._newest: dict[Hashable, int] = {}  # key of updatable events -> number of the current one
        self._last: wire.Wire | None = None
        self._number = 0
        self._news = asyncio.Event()

    def append(self, event: wire.Wire) -> None:
        """Append an event; drop the oldest where there are too many. Never waits for followers."""
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
        """Append the last event and close the log."""
        self._last = last
        self._wake()

    async def follow(self) -> AsyncGenerator[wire.Wire, None]:
        """Yield all kept events and all new ones, up to the last event."""
        seen = 0
        while True:
            news, last = self._news, self._last
            for number, event in [(n, e) for n, e in self._kept.items() if n > seen]:
                if number in self._kept:  # else it was replaced or dropped while the follower was busy
                    seen = number
                    yield event
            if last is not None:
                yield last
                return
            await news.wait()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _renews(event: wire.Wire) -> Hashable | None:
    """The key of an updatable event; None for one that never replaces another. Pure."""
    if isinstance(event, wire.ProgressEvent):
        return "progress"
    if isinstance(event, wire.FetchingEvent):
        return ("fetching", event.node)
    if isinstance(event, wire.StepEvent) and event.key:
        return ("step", event.key)
    return None
