"""The facts of this room for the health checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshd.model import ServiceState


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """services: name -> state of that service."""

    services: dict[str, ServiceState] = field(default_factory=dict)
