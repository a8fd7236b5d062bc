"""Checks that kubo's and ipfs-cluster's programs can run here, while this node is in no mesh and runs neither."""

from __future__ import annotations

import asyncio

from meshd import files
from meshd.cluster.engines import Engines
from meshd.errors import MeshError
from meshd.mesh.store import MeshStore

_EVERY_S = 10.0  # cheap, as what is found is not looked for again


class Programs:
    """`unusable`: why one of them cannot run, as of the last try; None where both can."""

    def __init__(self, engines: Engines, store: MeshStore) -> None:
        self._engines = engines
        self._store = store
        self.unusable: MeshError | None = None

    async def run(self) -> None:
        """Look for the programs periodically, for ever, while this node is in no mesh."""
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
            pass  # a busy machine: the next try asks again
        except OSError as exc:
            self.unusable = files.unusable(exc, "cannot run the engines")
        else:
            self.unusable = None
