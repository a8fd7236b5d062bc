"""The wait for durable replicas: polls each chosen node until it holds the entry on its disk, or is given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshd import wire
from meshd.model import Pin
from meshd.pins import timeouts
from meshd.pins.copies import Asker, Copies
from meshd.pins.nodes import Nodes

_LOOK_S = 1.0  # poll interval where nothing but time has changed


@dataclass(frozen=True, slots=True)
class Kept:
    """The outcome. held: the members that hold it. missing: fingerprint -> why that member does not."""

    pin: Pin
    held: tuple[wire.Member, ...]
    missing: Mapping[str, wire.Copy]


async def silent(_: wire.Wire) -> None:
    """An emit that drops its events."""


class Waiter:
    """Waits for replicas that are allocated. Makes none."""

    def __init__(self, copies: Copies, nodes: Nodes) -> None:
        self._copies = copies
        self._nodes = nodes

    async def wait(
        self,
        pin: Pin,
        emit: wire.Emit,
        *,
        among: Iterable[wire.Member] | None = None,
        held: Sequence[wire.Member] = (),
    ) -> Kept:
        """Wait until each node holds it or is given up. Emits each copy once.

        among: these nodes instead of all chosen ones. held: nodes that are known to hold it; they count, and are not
        polled.
        """
        there, missing = list(held), dict[str, wire.Copy]()
        known = {m.fingerprint for m in held}
        members = self._nodes.holders(pin) if among is None else among
        changed = asyncio.Event()
        watches = [
            _Watch(m, pin, self._copies.asker(m), changed) for m in members if m.fingerprint not in known
        ]
        try:
            while watches:
                changed.clear()
                for watch, copy in await self._settled(watches, emit):
                    watch.close()
                    watches.remove(watch)
                    if copy.state != "held":
                        missing[watch.member.fingerprint] = copy
                        continue
                    there.append(watch.member)
                    goal = self._nodes.goal(pin)
                    await emit(wire.CopyEvent(node=watch.member.name, held=len(there), wanted=goal))
                if watches:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await changed.wait()
        finally:
            for watch in watches:
                watch.close()
        return Kept(pin, tuple(there), missing)

    async def _settled(self, watches: Sequence[_Watch], emit: wire.Emit) -> list[tuple[_Watch, wire.Copy]]:
        """The watches that are settled, with the outcome. Emits the progress of the others."""
        away, now = self._nodes.away(), asyncio.get_running_loop().time()
        done = []
        for watch in watches:
            fingerprint = watch.member.fingerprint
            copy = watch.outcome(now, away=fingerprint in away or not self._nodes.is_member(fingerprint))
            if copy is not None:
                done.append((watch, copy))
                continue
            for event in watch.news(now):
                await emit(event)
        return done


class _Watch:
    """One node whose replica is awaited, with what was emitted about it. `close` it."""

    def __init__(self, member: wire.Member, pin: Pin, asker: Asker, changed: asyncio.Event) -> None:
        self.member = member
        self._size = pin.size
        self._asker = asker
        self._question = asker.open(pin.cid, changed)
        self._said = ""
        self._told, self._told_at = 0, float("-inf")

    def close(self) -> None:
        self._asker.close(self._question)

    def outcome(self, now: float, *, away: bool) -> wire.Copy | None:
        """The node's last answer, once it holds it, refuses it, or is given up; else None."""
        copy, waited = self._question.copy, now - self._question.since
        if copy.state == "held" or timeouts.given_up(copy.state, waited, away=away):
            return copy
        return None

    def news(self, now: float) -> Iterable[wire.Wire]:
        """The events that were not emitted yet."""
        state, fetched = self._question.copy.state, min(self._question.fetched_bytes, self._size)
        message = timeouts.worth_saying(state, now - self._question.since, self.member.name)
        if message and message != self._said:
            self._said = message
            yield wire.StepEvent(message=message)
        if state == "fetching" and timeouts.worth_telling(fetched, self._told, now - self._told_at):
            self._told, self._told_at = fetched, now
            yield wire.FetchingEvent(node=self.member.name, bytes=fetched, size=self._size)
