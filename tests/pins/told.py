"""The events that a caller of the room `pins` gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshd import wire


@dataclass
class Told:
    """An emit that records events."""

    events: list[wire.Wire] = field(default_factory=list)

    async def __call__(self, event: wire.Wire) -> None:
        self.events.append(event)

    def of(self, kind: type[wire.Wire]) -> list[wire.Wire]:
        return [e for e in self.events if isinstance(e, kind)]

    @property
    def done(self) -> wire.PinDoneEvent:
        (event,) = [e for e in self.events if isinstance(e, wire.PinDoneEvent)]
        return event
