"""kubo's and ipfs-cluster's programs: can they be run here? Told while there is no mesh; then the services say it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from meshd import files
from meshd.errors import MeshError
from meshd.health.facts import Facts
from meshd.model import Condition, Severity

_EVERY_S = 10.0  # one that is found is not looked for again
Find = Callable[[], Awaitable[object]]


def check(facts: Facts) -> Iterator[Condition]:
    if facts.unusable is not None and not facts.in_mesh:
        error = facts.unusable
        hint = error.hint or "meshctl version; from a checkout: make setup"
        yield Condition("engine-missing", Severity.ERROR, error.title, error.detail, hint)


class Programs:
    """`unusable` is why one of them cannot be run, as the last look found it."""

    def __init__(self, *find: Find) -> None:
        """find: for each a callable that raises MeshError or OSError where it cannot be run."""
        self._find = find
        self.unusable: MeshError | None = None

    async def find(self) -> None:
        """Raises what the first one raises that cannot be run."""
        for find in self._find:
            await find()

    async def run(self, needed: Callable[[], bool]) -> None:
        """Look for ever, while `needed`."""
        while True:
            if needed():
                await self._look()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        try:
            await self.find()
        except MeshError as exc:
            self.unusable = exc
        except TimeoutError:
            pass  # a busy machine: it is asked again
        except OSError as exc:
            self.unusable = files.unusable(exc, "cannot run the engines")
        else:
            self.unusable = None
