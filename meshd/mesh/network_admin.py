"""Who may be on the mesh's ZeroTier network, as far as this node can see and change it."""

from __future__ import annotations

import structlog

from meshd.config import Config
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.overlay.admin import Admin, Member, admin_of
from meshd.overlay.follow import Overlay

_LOG = structlog.get_logger(part="mesh")


class NetworkAdmin:
    """The mesh's network and the right to it, which both may come and go while the node runs."""

    def __init__(self, config: Config, store: MeshStore, overlay: Overlay) -> None:
        self._config = config
        self._store = store
        self._overlay = overlay

    @property
    def network(self) -> str:
        """Id of the mesh's ZeroTier network, "" where it is on another overlay."""
        mesh = self._store.mesh
        return mesh.network if mesh is not None else ""

    @property
    def page(self) -> str:
        """Where a person authorizes by hand, on ZeroTier's own service."""
        return f"https://my.zerotier.com/network/{self.network}"

    @property
    def has_right(self) -> bool:
        """Whether this node may authorize others there."""
        return self._admin() is not None

    def member(self, node: str) -> str:
        """The name of the member with that ZeroTier address, "" for none."""
        for member in self._store.members():
            if member.zerotier == node:
                return self._store.name_of(member.fingerprint)
        return ""

    async def waiting(self) -> list[Member]:
        """Nodes that asked to be on the network and may not yet. Raises MeshError DENIED where that cannot be seen."""
        if not self.network:
            return []
        return [m for m in await self._need().members() if not m.authorized]

    async def authorize(self, node: str) -> None:
        """Let a node (its ZeroTier address) onto the network; read back. Raises MeshError DENIED."""
        await self._need().authorize(node)
        _LOG.info("authorized on the network", node=node, network=self.network)

    def _admin(self) -> Admin | None:
        if not self.network:
            return None
        config = self._config.overlay.zerotier.network(self.network)
        return admin_of(config, self._overlay.zerotier, self._overlay.state.node)

    def _need(self) -> Admin:
        admin = self._admin()
        if admin is None:
            raise MeshError(
                Code.DENIED,
                f"cannot see or change who is on the ZeroTier network {self.network}",
                "this node has no API token for it, and is not its controller",
                f"do it on its admin page ({self.page}); or give this node the token: admin and admin_token_file in"
                f' [[overlay.zerotier.networks]] with id = "{self.network}"',
            )
        return admin
