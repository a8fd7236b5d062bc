"""How many connections of whom: a decision without a socket, so that nobody can lock the others out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Limit(NamedTuple):
    """Connections at one time: of `each` caller of a kind, and of all callers of that kind `together`.

    lasts_s: seconds after which a connection is ended whatever it does; None for no such end.
    """

    each: int
    together: int
    lasts_s: float | None = None


class Origin(NamedTuple):
    """Whom a connection counts for. kind: whose Limit. who: one caller of that kind, as a user id or an address."""

    kind: str
    who: str


class Slot:
    """One connection's place. silent_since: since when nothing of it is being answered; None while something is."""

    __slots__ = ("close", "origin", "silent_since")

    def __init__(self, origin: Origin, close: Callable[[], None], now: float) -> None:
        self.origin = origin
        self.close = close
        self.silent_since: float | None = now


class Limiter:
    """Gives out slots. Where a kind or a caller has all of its own, the one that was silent longest makes room.

    Every kind has slots of its own. Within one, the caller with the most connections loses one first. What is being
    answered is never closed for another one's sake: where nothing is silent, the new connection is refused.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        *,
        grace_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """grace_s: what is silent for less than that keeps its slot. For connections that cost much to begin: a flood
        is then refused, which costs nothing, and what came before it gets to its end."""
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
        """A slot, or None where there is no room. close(): ends the connection, at once and without waiting."""
        if not self._make_room(origin):
            return None
        slot = Slot(origin, close, self._monotonic())
        self._slots[origin.kind].setdefault(origin.who, set()).add(slot)
        return slot

    def move(self, slot: Slot, origin: Origin) -> bool:
        """Count it for another origin, now that one knows better. False where that has no room; it is released then."""
        self.release(slot)
        if not self._make_room(origin):
            return False
        slot.origin = origin
        self._slots[origin.kind].setdefault(origin.who, set()).add(slot)
        return True

    def release(self, slot: Slot) -> None:
        """The connection is no more. Does nothing the second time."""
        callers = self._slots[slot.origin.kind]
        mine = callers.get(slot.origin.who, set())
        mine.discard(slot)
        if not mine:
            callers.pop(slot.origin.who, None)

    def busy(self, slot: Slot) -> None:
        """Something of it is being answered from now on."""
        slot.silent_since = None

    def silent(self, slot: Slot) -> None:
        """Nothing of it is being answered from now on."""
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
