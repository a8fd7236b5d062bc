"""How far the nodes are that make copies: their bytes, the rate, and how long it may still take, as one line."""

from __future__ import annotations

from collections import deque

from meshctl import render

RATE_OVER_S = 10.0
SETTLED_S = 3.0  # a rate that was seen for less says nothing about the end
SILENT_S = 5.0  # a node tells once a second while it gets more


class Fetching:
    """What each node that makes a copy has said. Times are seconds of one clock that does not jump."""

    def __init__(self) -> None:
        self._said: dict[str, deque[tuple[float, int]]] = {}  # node -> when, and its bytes by then
        self._size = 0

    def heard(self, node: str, done: int, size: int, now: float) -> None:
        """A node has `done` of `size` bytes."""
        said = self._said.setdefault(node, deque())
        if said and done < said[-1][1]:  # it has begun anew
            said.clear()
        said.append((now, done))
        while len(said) > 2 and said[1][0] <= now - RATE_OVER_S:
            said.popleft()
        self._size = size

    def ended(self, node: str) -> None:
        """It has all of it."""
        self._said.pop(node, None)

    def line(self, now: float, columns: int) -> str:
        """For a person, with the rate of all nodes together; "" where nobody fetches.

        Where the names of several nodes do not fit into so many columns, the nodes are counted.
        """
        if not self._said:
            return ""
        text = f" of {render.size(self._size)}"
        rates = {node: self._rate(node, now) for node in self._said}
        if total := sum(rates.values()):
            text += f"  {render.size(total)}/s"
        if left := self._left(rates):
            text += f"  about {render.span(left)} left"
        named = f"  to {self._named()}{text}"
        fits = len(self._said) == 1 or render.width(named) < columns
        return named if fits else f"  to {self._counted()}{text}"

    def _named(self) -> str:
        gap = " " if len(self._said) > 1 else "  "
        return ", ".join(
            f"{render.safe(node)}{gap}{render.size(said[-1][1])}" for node, said in self._said.items()
        )

    def _counted(self) -> str:
        done = [said[-1][1] for said in self._said.values()]
        return f"{len(done)} nodes  {render.size(min(done))} to {render.size(max(done))}"

    def _rate(self, node: str, now: float) -> float:
        """Bytes a second, lately; 0 while that is not known, or where it gets nothing."""
        (began, before), (ended, after) = self._said[node][0], self._said[node][-1]
        if ended <= began or now - ended > SILENT_S:
            return 0.0
        return (after - before) / (ended - began)

    def _left(self, rates: dict[str, float]) -> float:
        """Seconds until the last one has all; 0 where nothing can be said."""
        settled = all(said[-1][0] - said[0][0] >= SETTLED_S for said in self._said.values())
        if not settled or not all(rates.values()):
            return 0.0
        left = max((self._size - self._said[node][-1][1]) / rate for node, rate in rates.items())
        return left if left >= 1 else 0.0
