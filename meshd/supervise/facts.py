"""What this room says of itself to the health checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshd.model import ServiceState


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """services: name -> what it does."""

    services: dict[str, ServiceState] = field(default_factory=dict)
