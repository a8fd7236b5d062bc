"""The conditions that hold now: since when, and each told once when it comes and once when it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import structlog

from meshd.health import members, overlay, privacy, services, storage
from meshd.health.facts import Facts
from meshd.model import Condition, Severity

CHECKS: tuple[Callable[[Facts], Iterator[Condition]], ...] = (
    overlay.check,
    services.check,
    privacy.check,
    members.check,
    storage.check,
)
_LOG = structlog.get_logger(part="health")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}

Listener = Callable[[str, Condition], None]


class Board:
    """`update` it with fresh facts; a condition whose cause went is gone with the next update."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Condition] = {}
        self.listeners: list[Listener] = []

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The worst first, then the oldest."""
        return tuple(sorted(self._held.values(), key=lambda c: (_ORDER[c.severity], c.since, c.key)))

    def update(self, facts: Facts) -> None:
        """Run every check."""
        self._replace((c for check in CHECKS for c in check(facts)), facts.now)

    def _replace(self, found: Iterable[Condition], now: float) -> None:
        new = {c.key: c for c in found}
        for key, condition in new.items():
            old = self._held.get(key)
            new[key] = dataclasses.replace(condition, since=old.since if old else now)
            if old is None:
                self._tell("raised", new[key])
        for key in self._held.keys() - new.keys():
            self._tell("cleared", self._held[key])
        self._held = new

    def _tell(self, what: str, condition: Condition) -> None:
        level = (
            "info"
            if what == "cleared"
            else {"error": "error", "warning": "warning"}.get(condition.severity, "info")
        )
        getattr(_LOG, level)(
            f"condition {what}",
            code=condition.code,
            title=condition.title,
            cause=condition.cause,
            hint=condition.hint if what == "raised" else "",
        )
        for listener in list(self.listeners):
            listener(what, condition)
