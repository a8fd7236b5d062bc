"""How far the nodes are that make copies: their bytes, the rate, and how long it may still take, as one line."""

from __future__ import annotations

from collections import deque

from meshctl import render

RATE_OVER_S = 10.0
SETTLED_S = 3.0  # a rate that was seen for less says nothing about the end
SILENT_S = 5.0  # a node tells once a second while it gets more
_NAMED = 3  # more nodes are only counted


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

    def line(self, now: float) -> str:
        """For a person; "" where nobody fetches."""
        if not self._said:
            return ""
        text = f"  to {self._nodes()} of {render.size(self._size)}"
        rates = {node: self._rate(node, now) for node in self._said}
        if total := sum(rates.values()):
            text += f"  {render.size(total)}/s{' together' if len(rates) > 1 else ''}"
        if left := self._left(rates):
            text += f"  about {render.span(left)} left"
        return text

    def _nodes(self) -> str:
        done = {node: said[-1][1] for node, said in self._said.items()}
        if len(done) > _NAMED:
            least, most = map(render.size, (min(done.values()), max(done.values())))
            return f"{len(done)} nodes  {least} to {most}"
        gap = " " if len(done) > 1 else "  "
        return ", ".join(f"{render.safe(node)}{gap}{render.size(count)}" for node, count in done.items())

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
