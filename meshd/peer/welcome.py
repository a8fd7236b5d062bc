"""The response to an admitted node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshd.errors import Code, MeshError
from meshd.mesh.protocol import PROTOCOL, speaks
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.wire import Admitted


class Welcome:
    """Makes the admission response: the mesh, its secrets and its roster. For members only, however admitted."""

    def __init__(
        self,
        store: MeshStore,
        secrets: Callable[[], Secrets],
        count_entries: Callable[[], Awaitable[int]],
    ) -> None:
        """secrets: returns the mesh's. count_entries: the pinset's size; 0 where it cannot be read now."""
        self._store = store
        self._count_entries = count_entries
        self.secrets = secrets

    async def answer(self, secrets: Secrets) -> Admitted:
        """Make the response. Raises MeshError NO_MESH where this node has just left."""
        mesh = self._store.mesh
        if mesh is None:
            raise MeshError(
                Code.NO_MESH,
                "cannot admit this node",
                "the node that was asked has just left the mesh",
                "ask another member for an invite: meshctl invite",
            )
        return Admitted(
            mesh_name=mesh.name,
            mesh_id=mesh.id,
            created=mesh.created,
            swarm_key=secrets.swarm_key,
            cluster_secret=secrets.cluster_secret,
            roster=self._store.roster(),
            entries=await self._count_entries(),
        )


def check_protocol(protocol: int) -> None:
    """Check a joiner's protocol version. Raises MeshError BAD_REQUEST for an incompatible one."""
    if not speaks(protocol):
        raise MeshError(
            Code.BAD_REQUEST,
            "cannot admit this node",
            f"it speaks protocol {protocol} and this mesh {PROTOCOL}",
            "update meshd on the older of the two machines, then again: meshctl join",
        )
