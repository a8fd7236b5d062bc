"""Health checks: functions from facts to conditions. Each room declares its facts, and may bring checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meshd.model import Condition, Fault

F = TypeVar("F")


class Facts:
    """All input of the checks, at one moment. now: wall clock, seconds. faults: parts of meshd that fail."""

    def __init__(self, now: float, facts: Iterable[object] = (), faults: tuple[Fault, ...] = ()) -> None:
        """facts: one instance of each room's class of facts."""
        self.now = now
        self.faults = faults
        self._facts = {type(one): one for one in facts}

    def of(self, kind: type[F]) -> F:
        """The facts of that class. Where there are none, its defaults, by which all is well."""
        found = self._facts.get(kind)
        return found if isinstance(found, kind) else kind()


@dataclass(frozen=True, slots=True)
class FactSource(Generic[F]):
    """How a room's facts are gathered. kind: a dataclass whose fields all have a default. fields: field -> its getter.

    Each getter is called by itself, so one that raises costs that field alone.
    """

    kind: type[F]
    fields: Mapping[str, Callable[[], Any]]

    def __post_init__(self) -> None:
        """Raises ValueError where the class has no such field: found later, it would hide all other facts."""
        if unknown := self.fields.keys() - self.kind.__annotations__.keys():
            raise ValueError(f"{self.kind.__name__} has no {', '.join(sorted(unknown))}")


@dataclass(frozen=True, slots=True)
class Check:
    """One health check. name: for a person, where it fails. look: pure, but for its own memory."""

    name: str
    look: Callable[[Facts], Iterator[Condition]]
