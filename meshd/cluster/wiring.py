"""Builds kubo and the cluster: the supervised programs, and the clients that call them."""

from __future__ import annotations

from pathlib import Path

from meshd import files
from meshd.cluster.datastore import Datastore
from meshd.cluster.redial import Redialer
from meshd.cluster.rest import Cluster
from meshd.cluster.service import ClusterProgram
from meshd.cluster.state_files import STATE_FILES
from meshd.component import Component, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.config import Config
from meshd.kubo.rpc import Kubo
from meshd.kubo.service import KuboProgram
from meshd.supervise.cgroups import Cgroups
from meshd.supervise.facts import ServiceFacts
from meshd.supervise.services import Services


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


class EngineRoom:
    """The two programs, their supervision, and their clients. Touches no file before `make_folders`."""

    def __init__(self, config: Config, groups: Cgroups | None) -> None:
        """groups: where their cgroups are made; None where there can be none."""
        state, private, where = config.state, config.private_sockets, config.paths.engines
        self.kubo = Kubo(private / "kubo.sock")
        self.cluster = Cluster(private / "cluster.sock")
        self.datastore = Datastore(state / "cluster")
        kubo_program = KuboProgram(state / "kubo", self.kubo, where, state)
        cluster_program = ClusterProgram(state / "cluster", self.cluster, where, state)
        self.engines = Engines(kubo_program, cluster_program)
        self.services = Services((kubo_program, cluster_program), groups)
        self.redialer = Redialer(cluster_program)

    def make_folders(self) -> None:
        """Make the folders of the two programs. Blocks. Raises OSError."""
        for folder in (self.engines.kubo.repo, self.engines.cluster.folder):
            files.private_directory(folder)

    def component(self) -> Component:
        """This room as a component. It starts and stops nothing: the reconciler does."""
        return Component(
            name="engines",
            stops=(
                Stop("the client of kubo", StopPhase.CLIENTS, self.kubo.close),
                Stop("the client of the cluster", StopPhase.CLIENTS, self.cluster.close),
            ),
            facts=(FactSource(ServiceFacts, {"services": lambda: self.services.states}),),
            state_files=STATE_FILES,
        )
