"""Diagnosis of this node: gathers every component's facts, runs every check, and puts the conditions on the board.

Each is isolated: a fact that cannot be had, or a check that raises, must not hide the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from meshd.component import Component, Loop
from meshd.conditions import Check, Facts, FactSource
from meshd.errors import one_line
from meshd.health.board import Board
from meshd.health.checks.failing import condition
from meshd.model import Condition, Fault
from meshd.periodic import TaskGuard, is_io_error

_EVERY_S = 2.0
_LOG = structlog.get_logger(part="health")


class _ToldOnce:
    """Logs a fault when it comes, and not again while it is the same."""

    def __init__(self, event: str, subject: str) -> None:
        """event: the log line's message. subject: the field of the log line that names what failed."""
        self._event = event
        self._subject = subject
        self._said: dict[str, str] = {}

    def failed(self, name: str, exc: Exception) -> str:
        """Log the fault unless it is the same as before; return it as one line."""
        error = one_line(exc)
        if self._said.get(name) != error:
            self._said[name] = error
            _LOG.error(self._event, **{self._subject: name}, error=error, exc_info=exc)
        return error

    def went_well(self, name: str) -> None:
        self._said.pop(name, None)


class Gathering:
    """Gathers `facts` from every source. Where one raises, the last value stays, and that is a fault."""

    def __init__(self, sources: Iterable[FactSource[Any]]) -> None:
        self._sources = tuple(sources)
        self._known: dict[tuple[type, str], Any] = {}
        self._told = _ToldOnce("cannot look", "fact")

    def facts(self, now: float, faults: tuple[Fault, ...] = ()) -> Facts:
        """faults: of other parts. now: wall clock, seconds."""
        own = [
            fault
            for source in self._sources
            for name, ask in source.fields.items()
            if (fault := self._ask(source.kind, name, ask)) is not None
        ]
        known = [
            source.kind(
                **{n: self._known[source.kind, n] for n in source.fields if (source.kind, n) in self._known}
            )
            for source in self._sources
        ]
        return Facts(now, known, (*faults, *own))

    def _ask(self, kind: type, name: str, ask: Callable[[], Any]) -> Fault | None:
        try:
            self._known[kind, name] = ask()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other facts count
            return Fault(f"look at {name}", self._told.failed(name, exc), is_io_error(exc))
        self._told.went_well(name)
        return None


class Checks:
    """Runs the checks. While one raises, its last conditions stay: nobody knows that they are over."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self._checks = tuple(checks)
        self._found: dict[str, list[Condition]] = {}  # check -> conditions of its last run that succeeded
        self._told = _ToldOnce("a check failed", "check")

    def conditions(self, facts: Facts) -> list[Condition]:
        """The conditions of all checks, and one for each check that fails."""
        faults = [fault for check in self._checks if (fault := self._make(check, facts)) is not None]
        return [c for found in self._found.values() for c in found] + [condition(fault) for fault in faults]

    def _make(self, check: Check, facts: Facts) -> Fault | None:
        name = check.name
        try:
            self._found[name] = list(check.look(facts))
        except Exception as exc:  # noqa: BLE001 - a bug in one check must not hide the others
            return Fault(f"check {name}", self._told.failed(name, exc))
        self._told.went_well(name)
        return None


class Diagnosis:
    """Gathers, checks, and updates the board. Call `update` periodically."""

    def __init__(self, components: Sequence[Component], board: Board, guard: TaskGuard) -> None:
        """guard: knows which parts of meshd fail."""
        self._gathering = Gathering(source for component in components for source in component.facts)
        self._checks = Checks(check for component in components for check in component.checks)
        self._board = board
        self._guard = guard

    async def update(self) -> None:
        facts = self._gathering.facts(time.time(), self._guard.faults())
        self._board.update(self._checks.conditions(facts), facts.now)

    def component(self) -> Component:
        """This room as a component."""
        looks = Loop("health", self.update, "what is shown here may be old", period_s=_EVERY_S)
        return Component(name="diagnosis", loops=(looks,))
