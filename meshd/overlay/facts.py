"""The facts of this room for the health checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshd.model import OverlayState


@dataclass(frozen=True, slots=True)
class OverlayFacts:
    """settled: False just after the start, or after the address came back, as no peer has been polled yet."""

    state: OverlayState = field(default_factory=OverlayState)
    settled: bool = True
