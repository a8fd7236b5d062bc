"""Gathers the facts, each by itself: one that cannot be had must not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from meshd.errors import one_line
from meshd.health.facts import Facts
from meshd.model import Fault
from meshd.rounds import is_io_error

_LOG = structlog.get_logger(part="health")


class Gathering:
    """`facts` asks every source. One that raises: the fact stays as it was last seen, and it is a fault."""

    def __init__(self, sources: Mapping[str, Callable[[], object]]) -> None:
        """sources: field of Facts -> what it is now."""
        self._sources = sources
        self._known: dict[str, Any] = {}
        self._said: dict[str, str] = {}

    def facts(self, now: float, faults: tuple[Fault, ...] = ()) -> Facts:
        """faults: of other parts. now: wall clock, seconds."""
        own = []
        for name, source in self._sources.items():
            try:
                self._known[name] = source()
                self._said.pop(name, None)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the others are told
                error = one_line(exc)
                own.append(Fault(f"look at {name}", error, is_io_error(exc)))
                if self._said.get(name) != error:  # the same fault is told once
                    self._said[name] = error
                    _LOG.error("cannot look", fact=name, error=error, exc_info=exc)
        return Facts(now=now, faults=(*faults, *own), **self._known)
