"""The conditions that hold now: since when, and each told once when it comes and once when it goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import structlog

from meshd.model import Condition, Severity

_LOG = structlog.get_logger(part="health")
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}

Listener = Callable[[str, Condition], None]


class Board:
    """`update` it with what the checks find; a condition whose cause went is gone with the next update."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Condition] = {}
        self._awaited: dict[tuple[str, str], float] = {}  # not told yet -> since when it is so
        self.listeners: list[Listener] = []

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The worst first, then the oldest."""
        return tuple(sorted(self._held.values(), key=lambda c: (_ORDER[c.severity], c.since, c.key)))

    def update(self, found: Sequence[Condition], now: float) -> None:
        """All that holds now, and nothing else does. now: wall clock, seconds."""
        codes = {condition.code for condition in found}
        new: dict[tuple[str, str], Condition] = {}
        awaited: dict[tuple[str, str], float] = {}
        news: list[tuple[str, Condition]] = []
        for condition in found:
            if not codes.isdisjoint(condition.depends_on):
                continue  # its cause is told
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
            except Exception:  # noqa: BLE001 - whoever listens must not keep the others from hearing it
                _LOG.exception("cannot tell of a condition", code=condition.code)
