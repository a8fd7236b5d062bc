"""Builds this room's parts and connects them. What the daemon needs of them is a field of `Pins`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshd import files
from meshd.cluster.datastore import Datastore
from meshd.cluster.rest import Cluster
from meshd.component import Component, Loop, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.config import Config
from meshd.errors import MeshError
from meshd.kubo.rpc import Kubo
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.store import MeshStore
from meshd.model import PeerState
from meshd.pins import entries
from meshd.pins.catalogue import Catalogue
from meshd.pins.commit import Committer
from meshd.pins.content import Content
from meshd.pins.copies import Copies
from meshd.pins.drain import Drain
from meshd.pins.facts import PinFacts
from meshd.pins.gate import Gate, GateRules
from meshd.pins.gc import Garbage
from meshd.pins.nodes import Nodes
from meshd.pins.peer_backend import PeerBackend
from meshd.pins.pin import Pinner
from meshd.pins.pinset import Pinset
from meshd.pins.rebalance import Rebalancer
from meshd.pins.remove import Remover
from meshd.pins.staging import Pending, Staging
from meshd.pins.storage import Storage
from meshd.pins.sweep import Sweeper
from meshd.pins.trash import Journal
from meshd.pins.uploads import Uploads
from meshd.pins.wait import Waiter
from meshd.state_files import StateFile

STATE_FILES = (
    StateFile("trash.db", database=True),
    StateFile("catalogue.db", database=True),
    StateFile("trash.json"),  # of meshd 0.1, until its migration
    StateFile("pending.json"),
)
_REBALANCE_EVERY_S = 5.0
_REBALANCE_SHARE = 0.02  # a large catalogue is read less often
_LOG = structlog.get_logger(part="pins")


@dataclass(frozen=True, slots=True)
class PinsDeps:
    """The dependencies of this room. content: the folders whose filesystems must be durable, kubo's first."""

    config: Config
    store: MeshStore
    peers: PeerClient
    kubo: Kubo
    cluster: Cluster
    datastore: Datastore
    content: tuple[Path, ...]
    peer_states: Callable[[], tuple[PeerState, ...]]
    ready: Callable[[], bool]


class Pins:
    """The whole room. Its construction blocks: reads the journal. Raises MeshError BAD_STATE."""

    def __init__(self, out: PinsDeps) -> None:
        config, kubo, cluster, store = out.config, out.kubo, out.cluster, out.store
        self._kubo = kubo
        self._store = store
        self.disk = disk = files.Disk(*out.content)
        self.journal = Journal(config.state / "trash.db")
        self.pending = Pending(config.state / "pending.json")
        self.storage = Storage(
            out.content[0], reserve=config.storage.reserve, offer=config.storage.offer, disk=disk
        )
        self.gate = Gate(config.private_sockets / "gate.sock", kubo, disk, self._gate_rules())
        self.copies = Copies(self.gate, store, out.peers)
        self.uploads = Uploads(kubo, self.storage)
        self.garbage = Garbage(kubo, self.uploads)
        self.pinset = Pinset(cluster, out.datastore, config.state / "catalogue.db")
        self.catalogue = Catalogue(self.pinset, store, self.copies, out.peer_states)
        self.content = Content(kubo, self.catalogue)
        self.nodes = Nodes(cluster, store, self.storage, out.peer_states)
        self.committer = Committer(cluster, self.nodes, disk)
        self.waiter = Waiter(self.copies, self.nodes)
        self.staging = Staging(
            kubo=kubo,
            cluster=cluster,
            uploads=self.uploads,
            disk=disk,
            pending=self.pending,
            removed=self.journal.knows,
        )
        self.pinner = Pinner(
            kubo=kubo,
            store=store,
            catalogue=self.catalogue,
            uploads=self.uploads,
            storage=self.storage,
            staging=self.staging,
            nodes=self.nodes,
            committer=self.committer,
            waiter=self.waiter,
            default_replicas=config.pins.replicas,
        )
        self.remover = Remover(
            kubo=kubo,
            gate=self.gate,
            cluster=cluster,
            store=store,
            peers=out.peers,
            catalogue=self.catalogue,
            copies=self.copies,
            journal=self.journal,
            nodes=self.nodes,
            committer=self.committer,
            pinner=self.pinner,
            garbage=self.garbage,
            disk=disk,
            window_s=config.pins.trash,
        )
        self.sweeper = Sweeper(
            kubo=kubo,
            cluster=cluster,
            pinset=self.pinset,
            store=store,
            copies=self.copies,
            journal=self.journal,
            remover=self.remover,
            storage=self.storage,
            fetching=self.gate.fetching,
            staging=self.staging,
            window_s=config.pins.trash,
        )
        self.rebalancer = Rebalancer(
            pinset=self.pinset,
            store=store,
            nodes=self.nodes,
            committer=self.committer,
            waiter=self.waiter,
            peer_states=out.peer_states,
            heal_after_s=config.pins.heal_after,
        )
        self.drain = Drain(
            pinset=self.pinset,
            store=store,
            copies=self.copies,
            nodes=self.nodes,
            committer=self.committer,
            waiter=self.waiter,
        )
        self.peer_backend = PeerBackend(
            store, out.peers, self.copies, self.journal, self.remover, self.storage, out.ready
        )

    def component(self) -> Component:
        """This room as a component."""
        return Component(
            name="pins",
            start=(self.gate.start,),
            loops=(
                Loop("garbage", self.garbage.run, "what was let go of still takes room"),
                Loop(
                    "replicate",
                    self.rebalancer.turn,
                    "missing copies are not made",
                    period_s=_REBALANCE_EVERY_S,
                    share=_REBALANCE_SHARE,
                    when_ready=True,
                ),
                Loop(
                    "sweep",
                    self.sweeper.sweep,
                    "what is due in the trash does not go",
                    period_s=self.sweeper.interval_s,
                    when_ready=True,
                ),
            ),
            stops=(
                Stop("open uploads", StopPhase.WORK, self.uploads.abort_all),
                Stop("what is under way for entries", StopPhase.WORK, self.stop),
                Stop("the index of the catalogue", StopPhase.CLIENTS, self.pinset.close),
                Stop("the gate", StopPhase.LISTENERS, self.gate.stop),
            ),
            peer_routes=self.peer_backend.routes(),
            facts=(FactSource(PinFacts, self._facts()),),
            state_files=STATE_FILES,
            release=self._release,
        )

    def _facts(self) -> dict[str, Callable[[], object]]:
        storage, rebalancer = self.storage, self.rebalancer
        return {
            "full": lambda: "" if storage.unreadable() else storage.full(),
            "unreadable": storage.unreadable,
            "unwritable": storage.broken,
            "trash": lambda: len(self.journal.all()),
            "short": lambda: rebalancer.short,
            "lost": lambda: rebalancer.lost,
            "lost_count": lambda: rebalancer.lost_count,
        }

    def follow(self, heartbeats: Heartbeats) -> None:
        """Hook into the heartbeat: set this node's facts before each beat, and fetch others' removals."""

        async def say() -> None:
            heartbeats.own = await self.peer_backend.facts()

        heartbeats.subscribe_beats(say)
        heartbeats.subscribe_removals(self.peer_backend.fetch_removals)

    def _gate_rules(self) -> GateRules:
        return GateRules(
            refuse=self._why_refuse,
            full=lambda: self.storage.closed(),
            removed=lambda cid: self.sweeper.removed(cid),
            free=lambda: self.storage.free(),
            member=lambda peer_id: any(m.kubo_id == peer_id for m in self._store.members()),
        )

    async def _why_refuse(self, cid: str) -> str:
        """Why this node refuses to store a CID for the cluster, or "". The entry has its size and owner."""
        entry = entries.from_node(cid, await self._kubo.get_node(cid, seconds=60))
        if entry is None:
            return self.storage.closed()  # pinned by another program: its size is not known before it is here
        foreign = entry.owner != self._store.fingerprint
        why = self.storage.refuse(entry.size, foreign=foreign)
        if not why and foreign:
            self.storage.expect(cid, entry.size)
        return why

    def _release(self) -> None:
        self.journal.close()
        self.pinset.release()

    async def stop(self) -> None:
        """Stop the work in the background; the next start goes on with what is committed."""
        await self.rebalancer.stop()
        await self.pinset.stop()
        try:
            await self.journal.keep_time(at_once=True)
        except MeshError as exc:  # the trash then ages from the last time that was written
            _LOG.warning("cannot write down how old the trash is", error=str(exc))
        await asyncio.to_thread(self.journal.close)
        await self.copies.stop()
