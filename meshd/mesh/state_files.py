"""What this room has in the state folder."""

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
# Any of these says that the node belonged to a mesh, and that mesh knows it by the key that is to be found here.
OF_A_MESH = tuple(declared.name for declared in (*STATE_FILES, *engines.STATE_FILES) if declared.proves_mesh)
