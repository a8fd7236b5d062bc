"""Checks of privacy: what the audit of the running programs found."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.health.facts import AuditFacts
from meshd.model import Condition, Severity


def privacy(facts: Facts) -> Iterator[Condition]:
    audit = facts.of(AuditFacts)
    if audit.drift:
        yield Condition(
            "kubo-config-drift",
            Severity.ERROR,
            "kubo runs with settings that are not private",
            "; ".join(audit.drift),
            "sudo systemctl restart meshd: every start writes the private settings again",
        )
    for stranger in audit.strangers:
        yield Condition(
            "swarm-stranger",
            Severity.WARNING,
            "a node outside the mesh has the swarm key",
            f"{stranger} is connected to kubo and is not in the roster; it can read what it knows the CID of",
            "meshctl peers; a forgotten node keeps the key it had until the mesh gets a new one",
            stranger.split(" ", 1)[0],
        )
    for path in audit.open_files:
        yield Condition(
            "secret-readable",
            Severity.ERROR,
            f"others may read {path}",
            "its mode is wider than 0600",
            f"chmod 600 {path}",
            path,
        )


CHECKS = (Check("privacy", privacy),)
