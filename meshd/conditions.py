"""What a health check is: facts of the rooms in, conditions out. Each room declares its facts, and may bring checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meshd.model import Condition, Fault

F = TypeVar("F")


class Facts:
    """All that the checks may look at, at one moment. now: wall clock, seconds. faults: parts of meshd that fail."""

    def __init__(self, now: float, facts: Iterable[object] = (), faults: tuple[Fault, ...] = ()) -> None:
        """facts: an instance of each room's own class of facts."""
        self.now = now
        self.faults = faults
        self._facts = {type(one): one for one in facts}

    def of(self, kind: type[F]) -> F:
        """The facts of that class; its defaults, which say that all is well, where there are none."""
        found = self._facts.get(kind)
        return found if isinstance(found, kind) else kind()


@dataclass(frozen=True, slots=True)
class FactSource(Generic[F]):
    """kind: a dataclass whose fields all have a default. fields: field -> what asks for it now; each is asked by itself."""

    kind: type[F]
    fields: Mapping[str, Callable[[], Any]]

    def __post_init__(self) -> None:
        """Raises ValueError at once where a field is not of that class: later it would hide all other facts."""
        if unknown := self.fields.keys() - self.kind.__annotations__.keys():
            raise ValueError(f"{self.kind.__name__} has no {', '.join(sorted(unknown))}")


@dataclass(frozen=True, slots=True)
class Check:
    """name: under which a person is told that it fails. look: pure but for what it remembers itself."""

    name: str
    look: Callable[[Facts], Iterator[Condition]]
