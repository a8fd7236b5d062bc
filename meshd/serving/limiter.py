"""Connection limits per caller, so that nobody can lock the others out. Decides without a socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Limit(NamedTuple):
    """The most connections at a time: of `each` caller of a kind, and of all callers of that kind `together`.

    lasts_s: seconds after which a connection is closed whatever it does; None for no such bound.
    """

    each: int
    together: int
    lasts_s: float | None = None


class Origin(NamedTuple):
    """The caller that a connection counts for. kind: selects the Limit. who: one caller, as a user id or an address."""

    kind: str
    who: str


class Slot:
    """One connection's slot. silent_since: since when it is idle; None while a request of it is answered."""

    __slots__ = ("close", "origin", "silent_since")

    def __init__(self, origin: Origin, close: Callable[[], None], now: float) -> None:
        self.origin = origin
        self.close = close
        self.silent_since: float | None = now


class Limiter:
    """Allocates slots. Where a kind or a caller has used all of its own, its longest idle connection is evicted.

    Every kind has slots of its own. Within a kind, the caller with the most connections loses one first. A connection
    whose request is being answered is never evicted: where none is idle, the new one is refused.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        *,
        grace_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """grace_s: a connection that is idle for less time keeps its slot.

        It is for connections that are expensive to begin: a flood is then refused, which costs nothing, and those that
        came before it finish.
        """
        self._limits = dict(limits)
        self._grace_s = grace_s
        self._monotonic = monotonic
        self._slots: dict[str, dict[str, set[Slot]]] = {kind: {} for kind in limits}

    def limit(self, origin: Origin) -> Limit:
        return self._limits[origin.kind]

    def count(self, kind: str) -> int:
        """Connections of that kind now."""
        return sum(map(len, self._slots[kind].values()))

    def take(self, origin: Origin, close: Callable[[], None]) -> Slot | None:
        """Allocate a slot; None where there is no room. close(): closes the connection, at once and without waiting."""
        if not self._make_room(origin):
            return None
        slot = Slot(origin, close, self._monotonic())
        self._slots[origin.kind].setdefault(origin.who, set()).add(slot)
        return slot

    def move(self, slot: Slot, origin: Origin) -> bool:
        """Count it for another origin, once the caller is known. False, and released, where that has no room."""
        self.release(slot)
        if not self._make_room(origin):
            return False
        slot.origin = origin
        self._slots[origin.kind].setdefault(origin.who, set()).add(slot)
        return True

    def release(self, slot: Slot) -> None:
        """Free the slot of a closed connection. Idempotent."""
        callers = self._slots[slot.origin.kind]
        mine = callers.get(slot.origin.who, set())
        mine.discard(slot)
        if not mine:
            callers.pop(slot.origin.who, None)

    def busy(self, slot: Slot) -> None:
        """Mark a connection: a request of it is being answered."""
        slot.silent_since = None

    def silent(self, slot: Slot) -> None:
        """Mark a connection as idle."""
        slot.silent_since = self._monotonic()

    def _make_room(self, origin: Origin) -> bool:
        limit, callers = self._limits[origin.kind], self._slots[origin.kind]
        mine = callers.get(origin.who, set())
        if len(mine) >= limit.each:
            return self._shed(mine)
        if self.count(origin.kind) < limit.together:
            return True
        most_first = sorted(callers.values(), key=len, reverse=True)
        return any(self._shed(slots) for slots in most_first)

    def _shed(self, slots: set[Slot]) -> bool:
        before = self._monotonic() - self._grace_s
        silent = [
            (slot.silent_since, slot)
            for slot in slots
            if slot.silent_since is not None and slot.silent_since <= before
        ]
        if not silent:
            return False
        _, oldest = min(silent, key=lambda each: each[0])
        self.release(oldest)
        oldest.close()
        return True
