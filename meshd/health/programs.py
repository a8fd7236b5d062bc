"""Looks whether kubo's and ipfs-cluster's programs can be run here, while there is no mesh in which they would."""

from __future__ import annotations

import asyncio

from meshd import files
from meshd.cluster.engines import Engines
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore

_EVERY_S = 10.0  # one that is found is not looked for again


class Programs:
    """`unusable` is why one of them cannot be run, as the last look found it."""

    def __init__(self, engines: Engines, store: MeshStore) -> None:
        self._engines = engines
        self._store = store
        self.unusable: MeshError | None = None

    async def run(self) -> None:
        """Look for ever, while this node is in no mesh."""
        while True:
            if self._store.mesh is None:
                await self._look()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> None:
        try:
            await self._engines.find()
        except MeshError as exc:
            self.unusable = exc
        except TimeoutError:
            pass  # a busy machine: it is asked again
        except OSError as exc:
            self.unusable = files.unusable(exc, "cannot run the engines")
        else:
            self.unusable = None
