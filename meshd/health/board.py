"""The conditions that hold now: since when, and each told once when it comes and once when it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import structlog

from meshd.errors import one_line
from meshd.health import (
    clocks,
    early,
    failing,
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
from meshd.model import Condition, Fault, Severity

Check = Callable[[Facts], Iterator[Condition]]
CHECKS: tuple[Check, ...] = (
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
    failing.check,
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
        self._found: dict[str, list[Condition]] = {}  # by each check, the last time it could be made
        self._said: dict[str, str] = {}  # the fault of each check that fails
        self._awaited: dict[tuple[str, str], float] = {}  # not told yet -> since when it is so
        self._history = History()
        self.listeners: list[Listener] = []

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The worst first, then the oldest."""
        return tuple(sorted(self._held.values(), key=lambda c: (_ORDER[c.severity], c.since, c.key)))

    def update(self, facts: Facts) -> None:
        """Run every check, each by itself. One that raises is told, and what it found before still stands."""
        facts = dataclasses.replace(facts, deaths=self._history.deaths(facts.now, facts.services))
        faults = [fault for check in CHECKS if (fault := self._make(check, facts)) is not None]
        found = [c for conditions in self._found.values() for c in conditions]
        self._replace([*found, *map(failing.condition, faults)], facts.now)

    def _make(self, check: Check, facts: Facts) -> Fault | None:
        name = check.__module__.rpartition(".")[2]
        try:
            self._found[name] = list(check(facts))
        except Exception as exc:  # noqa: BLE001 - a mistake in one of them; the others must be told
            fault = Fault(f"check {name}", one_line(exc))
            if self._said.get(name) != fault.error:  # the same fault is told once
                self._said[name] = fault.error
                _LOG.error("a check failed", check=name, error=fault.error, exc_info=exc)
            return fault
        self._said.pop(name, None)
        return None

    def _replace(self, found: Iterable[Condition], now: float) -> None:
        new: dict[tuple[str, str], Condition] = {}
        awaited: dict[tuple[str, str], float] = {}
        news: list[tuple[str, Condition]] = []
        for condition in found:
            key = condition.key
            old = self._held.get(key)
            since = old.since if old else self._awaited.get(key, now)
            if old is None and now - since < _PATIENCE_S.get(condition.code, 0.0):
                awaited[key] = since
                continue
            new[key] = dataclasses.replace(condition, since=since)
            if old is None:
                news.append(("raised", new[key]))
        news += [("cleared", self._held[key]) for key in self._held.keys() - new.keys()]
        self._held, self._awaited = new, awaited
        for what, condition in news:
            self._tell(what, condition)

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
            try:
                listener(what, condition)
            except Exception:  # noqa: BLE001 - whoever listens must not keep the others from hearing it
                _LOG.exception("cannot tell of a condition", code=condition.code)
