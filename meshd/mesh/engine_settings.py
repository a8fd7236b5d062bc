"""The desired settings of kubo and the cluster, from the configuration, the roster and the secrets."""

from __future__ import annotations

import dataclasses
import hashlib

from meshd.cluster import config as cluster_config
from meshd.cluster.service import ClusterProgram
from meshd.config import Config
from meshd.kubo import policy
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.store import MeshStore
from meshd.overlay.addresses import is_private
from meshd.wire import Member


class EngineSettings:
    """Where each engine listens, and its peers."""

    def __init__(
        self, config: Config, store: MeshStore, secret_store: SecretStore, cluster_program: ClusterProgram
    ) -> None:
        """cluster_program: counts its restarts that dial members at new addresses."""
        self._config = config
        self._store = store
        self._secret_store = secret_store
        self._cluster_program = cluster_program
        self._secrets: Secrets | None = None

    @property
    def ports(self) -> dict[str, int]:
        """Service -> its TCP port on the overlay address."""
        return {"kubo": self._config.ports.swarm, "cluster": self._config.ports.cluster}

    def kubo_endpoint(self, address: str) -> policy.KuboEndpoint:
        """Where kubo listens. address: this node's on the overlay."""
        return policy.KuboEndpoint(
            address, self._config.ports.swarm, self._config.private_sockets / "kubo.sock"
        )

    def cluster_settings(self, address: str) -> cluster_config.ClusterSettings:
        """Where the cluster listens, and its peers. Blocks on the first call (reads the secrets)."""
        if self._secrets is None:
            self._secrets = self._secret_store.load()
        mesh = self._store.mesh
        assert mesh is not None  # noqa: S101 - only called inside a mesh
        others = sorted(self._store.peers(), key=lambda m: m.cluster_id)
        private = self._config.private_sockets
        return cluster_config.ClusterSettings(
            address=address,
            port=self._config.ports.cluster,
            rest_socket=private / "cluster.sock",
            gate_socket=private / "gate.sock",
            name=self._store.me().name,
            mesh_id=mesh.id,
            secret=self._secrets.cluster_secret,
            trusted=tuple(m.cluster_id for m in others),
            peers=tuple(where for _, where in sorted(self.cluster_peers().items())),
            redials=self._cluster_program.redials,
        )

    def fingerprints(self, address: str) -> dict[str, str]:
        """Service -> fingerprint of its desired settings. Blocks on the first call (reads the secrets)."""
        return {
            "kubo": fingerprint(self.kubo_endpoint(address)),
            "cluster": fingerprint(self.cluster_settings(address)),
        }

    def cluster_peers(self) -> dict[str, str]:
        """Cluster id -> multiaddr with /p2p/ of the others, as the roster has them now."""
        return {
            m.cluster_id: f"{policy.multiaddr(m.address, m.cluster_port)}/p2p/{m.cluster_id}"
            for m in self._dialled()
        }

    def links(self) -> frozenset[str]:
        """The multiaddrs, with /p2p/, of kubo's desired peerings."""
        return frozenset(
            f"{policy.multiaddr(m.address, m.swarm_port)}/p2p/{m.kubo_id}" for m in self._dialled()
        )

    def kubo_ids(self) -> set[str]:
        """The peer ids that kubo may be connected to: the members'."""
        return {m.kubo_id for m in self._store.members()}

    def _dialled(self) -> list[Member]:
        """The other members with a known, private address: those that the engines may dial."""
        return [m for m in self._store.peers() if m.address and is_private(m.address)]


def fingerprint(place: policy.KuboEndpoint | cluster_config.ClusterSettings) -> str:
    """A hash of all fields but `peers`, the secret included: a change of it means a restart."""
    fields = [getattr(place, f.name) for f in dataclasses.fields(place) if f.name != "peers"]
    return hashlib.sha256(repr(fields).encode()).hexdigest()
