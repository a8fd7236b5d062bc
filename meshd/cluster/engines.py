"""The two engines, kubo and ipfs-cluster, as one pair."""

from __future__ import annotations

from pathlib import Path

from meshd.cluster.service import ClusterProgram
from meshd.kubo.service import KuboProgram


class Engines:
    """The two supervised programs, in start order."""

    def __init__(self, kubo: KuboProgram, cluster: ClusterProgram) -> None:
        self.kubo = kubo
        self.cluster = cluster

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version; "" before `find`."""
        return {program.name: program.version for program in (self.kubo, self.cluster)}

    async def find(self) -> None:
        """Find both binaries and check their versions.

        Raises MeshError ENGINE_MISSING, ENGINE_FAILED, or OSError, where one of them cannot run here.
        """
        await self.kubo.find()
        await self.cluster.find()

    async def create(self) -> tuple[str, str]:
        """Make their folders where there are none; return the peer ids of this kubo and this cluster."""
        return await self.kubo.create(), await self.cluster.create()

    def take_secrets_off_the_disk(self, swarm_key: Path, private: Path) -> None:
        """Replace their files that hold a secret by links to files in memory.

        swarm_key: a file of the key in memory. private: the folder for the cluster's settings. Blocks. Raises
        MeshError, OSError.
        """
        self.kubo.link_swarm_key(swarm_key)
        self.cluster.move_secret(private)
