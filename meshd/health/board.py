"""The registry of active warnings: since when each holds, with one event when it comes and one when it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import structlog

from meshd.model import Condition, Severity

_LOG = structlog.get_logger(part="health")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}

Listener = Callable[[str, Condition], None]


class Board:
    """The active conditions. Each `update` replaces them by what the checks find, so they clear themselves."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Condition] = {}
        self._awaited: dict[tuple[str, str], float] = {}  # not visible yet -> since when it holds
        self.listeners: list[Listener] = []

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The visible conditions, the worst first, then the oldest."""
        return tuple(sorted(self._held.values(), key=lambda c: (_ORDER[c.severity], c.since, c.key)))

    def update(self, found: Sequence[Condition], now: float) -> None:
        """Set what holds now; all else is cleared. now: wall clock, seconds."""
        codes = {condition.code for condition in found}
        new: dict[tuple[str, str], Condition] = {}
        awaited: dict[tuple[str, str], float] = {}
        news: list[tuple[str, Condition]] = []
        for condition in found:
            if not codes.isdisjoint(condition.depends_on):
                continue  # its cause is shown instead
            key = condition.key
            old = self._held.get(key)
            since = old.since if old else self._awaited.get(key, now)
            if old is None and now - since < condition.visible_after_s:
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
            except Exception:  # noqa: BLE001 - a listener's failure must not keep the event from the others
                _LOG.exception("cannot tell of a condition", code=condition.code)
