"""kubo and the cluster: do they run and answer? The overlay's fault is not told again here."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.health.facts import Facts
from meshd.model import Condition, Phase, Severity


def check(facts: Facts) -> Iterator[Condition]:
    if not facts.in_mesh or facts.overlay.address is None or facts.forgotten_by:
        return
    for service in facts.services.values():
        if service.leak:
            yield Condition(
                "service-leak",
                Severity.ERROR,
                f"{service.name} had a socket where none may be",
                service.leak,
                f"meshctl logs {service.name}; it is tried again by itself",
                service.name,
            )
        elif service.phase is Phase.READY and service.missed:
            yield Condition(
                "service-frozen",
                Severity.ERROR,
                f"{service.name} runs but does not answer",
                "it is killed and started again if it goes on so",
                f"meshctl logs {service.name}",
                service.name,
            )
        elif service.phase is Phase.BACKOFF or (service.phase is Phase.STARTING and service.last_exit):
            yield Condition(
                "service-down",
                Severity.ERROR,
                f"{service.name} does not run",
                service.last_exit,
                f"meshctl logs {service.name}; it is tried again by itself",
                service.name,
            )
