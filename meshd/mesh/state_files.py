"""The state files of this room."""

from __future__ import annotations

from meshd.cluster import state_files as engines
from meshd.state_files import Of, StateFile

STATE_FILES = (
    StateFile("node.key", Of.IDENTITY, secret=True),
    StateFile("node.crt", Of.IDENTITY),
    StateFile("mesh.json", Of.IDENTITY, secret=True, proves_mesh=True),
    StateFile("secrets/swarm.key", Of.IDENTITY, secret=True, proves_mesh=True),
    StateFile("secrets/cluster.secret", Of.IDENTITY, secret=True, proves_mesh=True),
    StateFile("secrets/swarm.key.encrypted", Of.IDENTITY, proves_mesh=True),
    StateFile("secrets/cluster.secret.encrypted", Of.IDENTITY),
    StateFile("seen.json"),
    StateFile("addresses.json"),
)
# Any of these proves that the node belonged to a mesh, which knows it by the key in this folder.
OF_A_MESH = tuple(declared.name for declared in (*STATE_FILES, *engines.STATE_FILES) if declared.proves_mesh)
