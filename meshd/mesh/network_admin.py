"""Authorization on the mesh's ZeroTier network, as far as this node can see and change it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from meshd.config import Config
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import PeerState
from meshd.overlay.monitor import MeshOnOverlay, Overlay
from meshd.overlay.zerotier_admin import Admin, Controller, Member, admin_of

_ANSWER_S = 1.0  # diagnosis goes without the controller's answer after that
_LOG = structlog.get_logger(part="mesh")


class NetworkAdmin:
    """The mesh's network and this node's access to its admin API. Both may change while the node runs."""

    def __init__(self, config: Config, store: MeshStore, overlay: Overlay) -> None:
        self._config = config
        self._store = store
        self._overlay = overlay
        self._deauthorized: dict[str, str] = {}
        store.subscribe(self._tell_the_overlay)
        self._tell_the_overlay()

    def _tell_the_overlay(self) -> None:
        named = {m.zerotier: self._store.name_of(m.fingerprint) for m in reversed(self._store.members())}
        self._overlay.mesh = MeshOnOverlay(self._store.mesh is not None, self.network, named)

    @property
    def network(self) -> str:
        """Id of the mesh's ZeroTier network, "" where it is on another overlay."""
        mesh = self._store.mesh
        return mesh.network if mesh is not None else ""

    def where_to_authorize(self, command: str) -> str:
        """Where a person can authorize a node, as this node cannot. A network's id names its controller.

        command: what to type on the member that is the controller, where one is.
        """
        controller = self.member(self.network[:10])
        if controller:
            return f"on {controller}, the network's controller, type: {command}"
        return (
            "do it in the admin page of the network's controller; on ZeroTier Central that is"
            f" https://my.zerotier.com/network/{self.network}"
        )

    @property
    def has_right(self) -> bool:
        """Whether this node can authorize others on the network."""
        return self._admin() is not None

    def member(self, node: str) -> str:
        """The name of the member with that ZeroTier address; "" for none."""
        for member in self._store.members():
            if member.zerotier == node:
                return self._store.name_of(member.fingerprint)
        return ""

    async def waiting(self) -> list[Member]:
        """Nodes that asked for access and are not authorized. Raises MeshError DENIED without access to them."""
        if not self.network:
            return []
        return [m for m in await self._need().members() if not m.authorized]

    async def physical_addresses(self) -> Mapping[str, str]:
        """ZeroTier address -> IP address, outside the overlay, of the nodes that this machine's service talks to."""
        return {node: peer.ip for node, peer in (await self._overlay.ways()).items() if peer.ip}

    @property
    def deauthorized(self) -> Mapping[str, str]:
        """Fingerprint -> ZeroTier address: the last result of `look_for_deauthorized`."""
        return self._deauthorized

    async def look_for_deauthorized(self, peers: Iterable[PeerState]) -> None:
        """Ask this machine's controller which of the unreachable peers it does not authorize.

        None, where it does not control this network or does not know them; as before, where it does not answer at
        once.
        """
        admin = self._admin()
        if not isinstance(admin, Controller) or self._overlay.state.address is None:
            self._deauthorized = {}
            return
        away = {p.fingerprint for p in peers if not p.reachable and p.last_seen}
        nodes = {m.fingerprint: m.zerotier for m in self._store.peers() if m.zerotier}
        try:
            async with asyncio.timeout(_ANSWER_S):
                found = {f: await admin.member(nodes[f]) for f in away & nodes.keys()}
        except (MeshError, TimeoutError):
            return
        self._deauthorized = {f: m.address for f, m in found.items() if m is not None and not m.authorized}

    async def authorize(self, node: str) -> None:
        """Authorize a node (its ZeroTier address) on the network, and read that back. Raises MeshError DENIED."""
        await self._need(f"meshctl approve {node}").authorize(node)
        _LOG.info("authorized on the network", node=node, network=self.network)

    def _admin(self) -> Admin | None:
        if not self.network:
            return None
        config = self._config.overlay.zerotier.network(self.network)
        # While the service is down this machine's ZeroTier address is unknown.
        node = self._overlay.state.node or self._store.me().zerotier
        return admin_of(config, self._overlay.zerotier, node)

    def _need(self, command: str = "meshctl requests") -> Admin:
        """command: see `where_to_authorize`."""
        admin = self._admin()
        if admin is None:
            raise MeshError(
                Code.DENIED,
                f"cannot see or change who is on the ZeroTier network {self.network}",
                "this node has no API token for it, and is not its controller",
                f"{self.where_to_authorize(command)}; or give this node the right: admin in [[overlay.zerotier.networks]] with"
                f' id = "{self.network}"',
            )
        return admin
