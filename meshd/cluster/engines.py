"""kubo's and ipfs-cluster's programs, as one."""

from __future__ import annotations

from pathlib import Path

from meshd.cluster.service import ClusterProgram
from meshd.kubo.service import KuboProgram


class Engines:
    """The two programs that are supervised, in the order in which they are started."""

    def __init__(self, kubo: KuboProgram, cluster: ClusterProgram) -> None:
        self.kubo = kubo
        self.cluster = cluster

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version; "" before it was looked for."""
        return {program.name: program.version for program in (self.kubo, self.cluster)}

    async def find(self) -> None:
        """Raises MeshError ENGINE_MISSING, ENGINE_FAILED, or OSError, where one of them cannot be run here."""
        await self.kubo.find()
        await self.cluster.find()

    async def create(self) -> tuple[str, str]:
        """Make their folders where there are none; the peer ids of this kubo and this cluster."""
        return await self.kubo.create(), await self.cluster.create()

    def take_secrets_off_the_disk(self, swarm_key: Path, private: Path) -> None:
        """Put links where their own files have a secret. swarm_key: a file of it that is on no disk. private: the folder
        for the cluster's settings. Blocks. Raises MeshError, OSError."""
        self.kubo.link_swarm_key(swarm_key)
        self.cluster.move_secret(private)
