"""Progress of replication as one line: each node's bytes, the rate, and the time left."""

from __future__ import annotations

from meshctl import render

RATE_OVER_S = 10.0
SETTLED_S = 3.0  # a rate measured for less time predicts nothing
SILENT_S = 5.0  # a node reports once a second while it gets more


class Fetching:
    """The progress of each node that fetches a copy. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._said: dict[str, list[tuple[float, int]]] = {}  # node -> (time, bytes by then)
        self._size = 0

    def heard(self, node: str, done: int, size: int, now: float) -> None:
        """Record that a node has `done` of `size` bytes."""
        said = self._said.setdefault(node, [])
        if said and done < said[-1][1]:  # it has begun anew
            said.clear()
        said.append((now, done))
        while len(said) > 2 and said[1][0] <= now - RATE_OVER_S:
            del said[0]
        self._size = size

    def ended(self, node: str) -> None:
        """Record that a node has finished."""
        self._said.pop(node, None)

    def line(self, now: float, columns: int) -> str:
        """The line, with the rate of all nodes together; "" where no node fetches.

        Counts the nodes where their names do not fit into so many columns.
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
        """Recent bytes a second; 0 while unknown, or where the node gets nothing."""
        (began, before), (ended, after) = self._said[node][0], self._said[node][-1]
        if ended <= began or now - ended > SILENT_S:
            return 0.0
        return (after - before) / (ended - began)

    def _left(self, rates: dict[str, float]) -> float:
        """Seconds until the last node has all; 0 where unknown."""
        settled = all(said[-1][0] - said[0][0] >= SETTLED_S for said in self._said.values())
        if not settled or not all(rates.values()):
            return 0.0
        left = max((self._size - self._said[node][-1][1]) / rate for node, rate in rates.items())
        return left if left >= 1 else 0.0
