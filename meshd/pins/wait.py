"""The wait for durable replicas: each chosen node is asked until it holds the entry on its disk, or is given up."""

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

_LOOK_S = 1.0  # after so long nothing may have changed but the time that passed


@dataclass(frozen=True, slots=True)
class Kept:
    """The outcome. held: the members that hold it; missing: of those that do not, by fingerprint, why."""

    pin: Pin
    held: tuple[wire.Member, ...]
    missing: Mapping[str, wire.Copy]


async def silent(_: wire.Wire) -> None:
    """For whom nobody listens."""


class Waiter:
    """Waits for copies that were allocated, and makes none."""

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
        """Until each of them holds it, or was given up; each copy is emitted once.

        among: these instead of all that were chosen. held: those that are known to hold it; they count, and are not asked.
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
        """Those that need not be waited for any longer, and why; of the others is told what there is to tell."""
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
    """One node whose copy is waited for, and what was told of it. `close` it."""

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
        """What the node said last, once it holds it, refuses it, or was waited for long enough."""
        copy, waited = self._question.copy, now - self._question.since
        if copy.state == "held" or timeouts.given_up(copy.state, waited, away=away):
            return copy
        return None

    def news(self, now: float) -> Iterable[wire.Wire]:
        """What has not been told yet."""
        state, fetched = self._question.copy.state, min(self._question.fetched_bytes, self._size)
        message = timeouts.worth_saying(state, now - self._question.since, self.member.name)
        if message and message != self._said:
            self._said = message
            yield wire.StepEvent(message=message)
        if state == "fetching" and timeouts.worth_telling(fetched, self._told, now - self._told_at):
            self._told, self._told_at = fetched, now
            yield wire.FetchingEvent(node=self.member.name, bytes=fetched, size=self._size)
