"""The conditions that hold now: since when, and each told once when it comes and once when it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import structlog

from meshd.health import (
    clocks,
    early,
    long_away,
    members,
    overlay,
    privacy,
    programs,
    services,
    storage,
    taking_part,
    unstable,
    versions,
    writing,
)
from meshd.health.facts import Facts
from meshd.health.history import History
from meshd.model import Condition, Severity

CHECKS: tuple[Callable[[Facts], Iterator[Condition]], ...] = (
    overlay.check,
    programs.check,
    services.check,
    unstable.check,
    privacy.check,
    members.check,
    long_away.check,
    taking_part.check,
    versions.check,
    storage.check,
    early.check,
    writing.check,
    clocks.check,
)
_LOG = structlog.get_logger(part="health")
# Seconds that it must last until it is told, for what is no trouble while it is short: a node that starts is not ready.
_PATIENCE_S = {"peer-not-ready": 60.0}
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}

Listener = Callable[[str, Condition], None]


class Board:
    """`update` it with fresh facts; a condition whose cause went is gone with the next update."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Condition] = {}
        self._awaited: dict[tuple[str, str], float] = {}  # not told yet -> since when it is so
        self._history = History()
        self.listeners: list[Listener] = []

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The worst first, then the oldest."""
        return tuple(sorted(self._held.values(), key=lambda c: (_ORDER[c.severity], c.since, c.key)))

    def update(self, facts: Facts) -> None:
        """Run every check."""
        facts = dataclasses.replace(facts, deaths=self._history.deaths(facts.now, facts.services))
        self._replace((c for check in CHECKS for c in check(facts)), facts.now)

    def _replace(self, found: Iterable[Condition], now: float) -> None:
        new: dict[tuple[str, str], Condition] = {}
        awaited: dict[tuple[str, str], float] = {}
        for condition in list(found):
            key = condition.key
            old = self._held.get(key)
            since = old.since if old else self._awaited.get(key, now)
            if old is None and now - since < _PATIENCE_S.get(condition.code, 0.0):
                awaited[key] = since
                continue
            new[key] = dataclasses.replace(condition, since=since)
            if old is None:
                self._tell("raised", new[key])
        for key in self._held.keys() - new.keys():
            self._tell("cleared", self._held[key])
        self._held, self._awaited = new, awaited

    def _tell(self, what: str, condition: Condition) -> None:
        level = (
            "info"
            if what == "cleared"
            else {"error": "error", "warning": "warning"}.get(condition.severity, "info")
        )
        getattr(_LOG, level)(
            f"condition {what}",
            code=condition.code,
            subject=condition.subject,
            title=condition.title,
            cause=condition.cause,
            hint=condition.hint if what == "raised" else "",
        )
        for listener in list(self.listeners):
            listener(what, condition)
