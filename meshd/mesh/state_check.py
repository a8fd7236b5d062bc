"""Consistency check of the state folder before each start: all of it must belong to one node and one mesh.

Where an engine's identity is missing it would make a new one, while the mesh knows this node by the old one: the
others would keep peerings with, and trust in, a node that no longer exists, and no error would show it.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Any

from meshd import files
from meshd.errors import MeshError
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.state import MeshState, unusable

_KUBO_CONFIG = "kubo/config"
_CLUSTER_IDENTITY = "cluster/identity.json"
_CLUSTER_CONFIG = "cluster/service.json"
_RAN_IN_A_MESH = "kubo/swarm.key"  # written before kubo's first start, which needs a mesh
_LAST_OF_KUBO = "kubo/version"  # the last file that `ipfs init` writes (read in fsrepo.Init of 0.43)


def check(folder: Path, mesh: MeshState | None, fingerprint: str, secret_store: SecretStore) -> None:
    """Check that the parts of the state folder fit together. fingerprint: this node's.

    Blocks; writes nothing. Raises MeshError BAD_STATE that names the file and what to do.
    """
    if mesh is None:
        if os.path.lexists(folder / _RAN_IN_A_MESH):
            cause = f"the file is missing, and {folder / _RAN_IN_A_MESH} says that this node is in a mesh"
            raise unusable(folder / "mesh.json", cause)
        return
    me = mesh.entries[fingerprint]
    if me.forgotten:
        return  # it leaves, and its content may be gone
    secrets = secret_store.load()
    if mesh.secrets and not hmac.compare_digest(mesh.secrets, secrets.digest()):
        raise secret_store.another_mesh()
    kubo = _read(folder / _KUBO_CONFIG).get("Identity")
    kubo_id = kubo.get("PeerID") if isinstance(kubo, dict) else None
    cluster_id = _read(folder / _CLUSTER_IDENTITY).get("id")
    if (
        folder / _CLUSTER_CONFIG
    ).exists():  # kubo makes a missing one anew, with the same identity (measured)
        _read(
            folder / _CLUSTER_CONFIG,
            hint=f"move {folder / _CLUSTER_CONFIG} away: it is made anew at the next start",
        )
    for name, found, known in (
        (_KUBO_CONFIG, kubo_id, me.kubo_id),
        (_CLUSTER_IDENTITY, cluster_id, me.cluster_id),
    ):
        if found != known:
            path = folder / name
            raise unusable(
                path, f"it is another node's: it says {found}, and mesh.json knows this node as {known}"
            )


def _read(path: Path, *, hint: str = "") -> dict[str, Any]:
    """Read a JSON object that must exist. hint: what to type where it is damaged."""
    try:
        document = files.read_json(path)
    except FileNotFoundError:
        raise unusable(path, "the file is missing, and a new one would be a stranger to the mesh") from None
    except MeshError as exc:
        raise unusable(path, exc.detail, hint) from None
    if not isinstance(document, dict):
        raise unusable(path, "the file is damaged (it holds no JSON object)", hint)
    return document


class JoinTransaction:
    """The transaction of one attempt to join or found a mesh: a failure rolls the state folder back."""

    def __init__(self, folder: Path) -> None:
        """Blocks: rolls back an attempt that a crash interrupted, first."""
        self._folder = folder
        kubo, cluster = folder / "kubo", folder / "cluster"
        if (folder / _KUBO_CONFIG).exists() and not (folder / _LAST_OF_KUBO).exists():
            files.empty(kubo)
        if not (folder / _CLUSTER_IDENTITY).exists() or not (folder / _CLUSTER_CONFIG).exists():
            files.empty(cluster)
        self._were_empty = [path for path in (kubo, cluster) if path.is_dir() and not any(path.iterdir())]
        self._had_secrets = Secrets.swarm_key_file(folder).exists()

    def undo(self) -> None:
        """Roll back: empty what was empty when it began. Blocks. Raises OSError."""
        if not self._had_secrets:
            Secrets.erase(self._folder)
        for path in self._were_empty:
            files.empty(path)
