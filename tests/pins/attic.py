"""The room `pins` of one node of a mesh: its engines are fakes, the other nodes real listeners with fake content."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

from meshd import config, files, wire
from meshd.cluster.datastore import Datastore
from meshd.cluster.rest import Cluster
from meshd.kubo.rpc import Kubo
from meshd.model import PeerState, Pin, Replicas
from meshd.pins import entries
from meshd.pins.wiring import Pins, PinsDeps
from tests.mesh_room.nodes import Node
from tests.pins.fake_engines import FakeCluster, FakeKubo, cid_of

LOWEST, HIGHEST = "0" * 64, "f" * 64
ROOMY = 10**12
_numbers = itertools.count()


class Attic:
    """This node. others: the other members; their `holder.held` has what they hold, by CID."""

    def __init__(self, folder: Path, node: Node, others: list[Node], **settings: str) -> None:
        self.node = node
        self.others = others
        self.store = node.store
        self.fake_kubo = FakeKubo(folder / "kubo.sock")
        self.fake_cluster = FakeCluster(folder / "cluster.sock")
        self.fake_cluster.measured = {m.cluster_id for m in self.store.members()}
        self.fake_cluster.pinned = self._fetched
        self.fetch = True  # whether the others fetch at once what is allocated to them
        self.kubo = Kubo(self.fake_kubo.socket)
        self.cluster = Cluster(self.fake_cluster.socket)
        self.states = {o.fingerprint: self._state(o) for o in others}
        self.more: list[PeerState] = []  # more members that the heartbeat reports
        self.ready = True
        lines = [f'{key} = "{value}"' for key, value in ({"trash": "1h"} | settings).items()]
        text = f'[paths]\nstate = "{folder}"\nrun = "{folder}"\n[storage]\nreserve = "0B"\n[pins]\n'
        self.config = config.parse(text + "\n".join(lines), "the test")
        files.private_directory(self.config.private_sockets)
        self.pins = Pins(
            PinsDeps(
                config=self.config,
                store=self.store,
                peers=node.peers,
                kubo=self.kubo,
                cluster=self.cluster,
                datastore=Datastore(folder / "cluster"),
                content=(folder,),
                peer_states=lambda: (*self.states.values(), *self.more),
                ready=lambda: self.ready,
            )
        )

    async def start(self) -> None:
        await self.fake_kubo.start()
        await self.fake_cluster.start()

    async def stop(self) -> None:
        await self.pins.stop()
        await self.kubo.close()
        await self.cluster.close()
        await self.fake_cluster.stop()
        await self.fake_kubo.stop()

    def _state(self, other: Node) -> PeerState:
        """The state of a healthy node, as the heartbeat reports it."""
        member = self.node.view_of(other)
        return PeerState(
            other.fingerprint,
            other.name,
            member.address,
            reachable=True,
            ready=True,
            free_bytes=ROOMY,
            last_seen=time.time(),
            seen_at=time.monotonic(),
        )

    def _fetched(self, record: dict[str, Any]) -> None:
        for other in self.others:
            if self.fetch and f"cluster{other.name}" in record["allocations"]:
                other.holder.held.add(record["cid"])

    async def time_passes(self) -> None:
        """Return once work in the background that waits for no other node has called the cluster."""
        for _ in range(20):
            await self.cluster.allocations()

    def state(self, other: Node, **changes: object) -> None:
        """Change the state that the heartbeat reports of a node."""
        old = self.states[other.fingerprint]
        self.states[other.fingerprint] = dataclasses.replace(old, **changes)  # type: ignore[arg-type]

    def is_away(self, other: Node, seconds: float) -> None:
        """Let a node be unreachable for so many seconds."""
        seen = time.monotonic() - seconds
        self.state(other, reachable=False, seen_at=seen, away_since=seen, problem="it does not answer")

    def entry(
        self,
        *on: Node,
        owner: str = "",
        wanted: Replicas = 2,
        here: bool = True,
        kept: bool = True,
        root: str = "",
        size: int = 50,
        said: Replicas | None = None,
    ) -> Pin:
        """An entry, allocated to the nodes `on` (none: to all), each of which has it.

        owner: this node. here: pinned in this node's kubo. kept: in the pinset. said: what the pinset has as the number
        that is wanted, where that is not what the entry says.
        """
        name = f"entry {next(_numbers)}"
        draft = Pin(
            cid="",
            name=name,
            owner=owner or self.node.fingerprint,
            root=root or cid_of(name.encode()),
            size=size,
            time=1700000000.125,
            wanted=wanted,
            allocations=tuple(f"cluster{o.name}" for o in on),
        )
        node = entries.to_node(draft)
        pin = dataclasses.replace(draft, cid=self.fake_kubo.put(node))
        if here:
            self.fake_kubo.blocks.setdefault(pin.root, None)
            self.fake_kubo.names[pin.cid] = name
        else:
            self.fake_kubo.elsewhere[pin.cid] = self.fake_kubo.blocks.pop(pin.cid)
        if kept:
            self.keep(dataclasses.replace(pin, wanted=wanted if said is None else said))
        for other in on or self.others:
            if other is not self.node:
                other.holder.held.add(pin.cid)
        return pin

    def keep(self, pin: Pin) -> None:
        """Put a record into the pinset."""
        self.fake_cluster.records[pin.cid] = {
            "cid": pin.cid,
            "name": pin.name,
            "allocations": list(pin.allocations),
            "metadata": {
                "owner": pin.owner,
                "root": pin.root,
                "size": str(pin.size),
                "files": str(pin.files),
                "time": repr(pin.time),
                "wanted": str(pin.wanted),
                "directory": "0",
            },
        }

    def allocated(self, pin: Pin) -> list[str]:
        """Names of the nodes that are allocated to a pin."""
        allocations: list[str] = self.fake_cluster.records[pin.cid]["allocations"]
        return sorted(a.removeprefix("cluster") for a in allocations)

    def has(self, pin: Pin) -> bool:
        """Whether this node's kubo has it pinned."""
        return pin.cid in self.fake_kubo.names

    def removal(self, pin: Pin, by: str = "", *, now: bool = False, **other: object) -> wire.Removal:
        """The report of its removal."""
        told: dict[str, object] = {
            "cid": pin.cid,
            "time": time.time(),
            "by": by or self.node.fingerprint,
            "name": pin.name,
            "owner": pin.owner,
            "root": pin.root,
            "wanted": pin.wanted,
            "now": now,
        }
        return wire.Removal.model_validate(told | other)

    def says(self, pin: Pin) -> str:
        """This node's record of its removal: "" for none, "lying", or "gone"."""
        if self.pins.journal.get(pin.cid) is not None:
            return "lying"
        return "gone" if self.pins.journal.knows(pin.cid) else ""
