"""Consistency check of the state folder before each start: all of it must belong to one node and one mesh.

kubo and the cluster would make themselves a new identity where theirs is missing, and the mesh knows this node by the old
one: the others would hold links and trust for a node that is not there any more, and nobody would be told.
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
_RAN_IN_A_MESH = "kubo/swarm.key"  # put there before kubo's first start, which a mesh comes before
_LAST_OF_KUBO = "kubo/version"  # the last file that `ipfs init` writes (read in fsrepo.Init of 0.43)


def check(folder: Path, mesh: MeshState | None, fingerprint: str, secret_store: SecretStore) -> None:
    """See that what is in the state folder fits together. fingerprint: this node's.

    Blocks; writes nothing. Raises MeshError BAD_STATE that names the file and what to do.
    """
    if mesh is None:
        if os.path.lexists(folder / _RAN_IN_A_MESH):
            cause = f"the file is missing, and {folder / _RAN_IN_A_MESH} says that this node is in a mesh"
            raise unusable(folder / "mesh.json", cause)
        return
    me = mesh.entries[fingerprint]
    if me.forgotten:
        return  # it is leaving, and what it held may be gone
    secrets = secret_store.load()
    if mesh.secrets and not hmac.compare_digest(mesh.secrets, secrets.digest()):
        raise secret_store.another_mesh()
    kubo = _read(folder / _KUBO_CONFIG).get("Identity")
    kubo_id = kubo.get("PeerID") if isinstance(kubo, dict) else None
    cluster_id = _read(folder / _CLUSTER_IDENTITY).get("id")
    if (
        folder / _CLUSTER_CONFIG
    ).exists():  # where it is missing it is made anew, with the same identity (measured)
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
    """A JSON object that must be there. hint: what to type instead where it is damaged."""
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
    """One try to become a member: where it fails, the state folder is as it was before."""

    def __init__(self, folder: Path) -> None:
        """Blocks: what a try that was cut off by a crash left half done goes first."""
        self._folder = folder
        kubo, cluster = folder / "kubo", folder / "cluster"
        if (folder / _KUBO_CONFIG).exists() and not (folder / _LAST_OF_KUBO).exists():
            files.empty(kubo)
        if not (folder / _CLUSTER_IDENTITY).exists() or not (folder / _CLUSTER_CONFIG).exists():
            files.empty(cluster)
        self._were_empty = [path for path in (kubo, cluster) if path.is_dir() and not any(path.iterdir())]
        self._had_secrets = Secrets.swarm_key_file(folder).exists()

    def undo(self) -> None:
        """Empty what was empty when it began. Blocks. Raises OSError."""
        if not self._had_secrets:
            Secrets.erase(self._folder)
        for path in self._were_empty:
            files.empty(path)
