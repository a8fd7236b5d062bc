"""The check that the engines' programs can run here, while there is no mesh. In a mesh the services report it."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.health.facts import AuditFacts
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, Severity


def programs(facts: Facts) -> Iterator[Condition]:
    error = facts.of(AuditFacts).unusable
    if error is not None and not facts.of(MeshFacts).in_mesh:
        hint = error.hint or "meshctl version; from a checkout: make setup"
        yield Condition("engine-missing", Severity.ERROR, error.title, error.detail, hint)


CHECKS = (Check("programs", programs),)
