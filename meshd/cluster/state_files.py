"""The state files of kubo and the cluster."""

from __future__ import annotations

from meshd.state_files import StateFile

STATE_FILES = (
    StateFile("kubo/"),
    StateFile("kubo/swarm.key", secret=True, proves_mesh=True),
    StateFile("kubo/config", secret=True),
    StateFile("cluster/"),
    StateFile("cluster/service.json", secret=True),
    StateFile("cluster/identity.json", secret=True, proves_mesh=True),
)
