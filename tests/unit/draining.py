"""A mesh in one process for the rules of leaving: real rosters, real placement, real waiting for copies; no engine.

One pinset is the same for all, as the clusters' is in the end. A node that shall hold an entry fetches it from any that
does. Who talks to whom, and in which order, the test decides by `jitter`.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.mesh import certificate, invites
from meshd.mesh.store import MeshStore
from meshd.model import PeerState, Pin
from meshd.pins.commit import Committer
from meshd.pins.copies import Copies
from meshd.pins.drain import Drain
from meshd.pins.nodes import Nodes
from meshd.pins.storage import Room
from meshd.pins.wait import Waiter
from meshd.wire import Admitted, Confirmed, ConfirmRequest, Joiner, Member, verbs
from tests.pins.listed import Listed

ROOM = 10**9


class World:
    """All the nodes, by name; the pinset, by CID; and how irregularly things happen."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.nodes: dict[str, Host] = {}
        self.pinset: dict[str, Pin] = {}
        self.commits: list[Pin] = []
        self._random = random.Random(seed)

    async def build(self, *names: str) -> World:
        """A mesh of nodes with these names; the first founds it."""
        for name in names:
            self.nodes[name] = Host(self, name)
        first = self.nodes[names[0]]
        await first.store.create("archive", first.joiner)
        for name in names[1:]:
            invite = await first.store.issue_invite(3600)
            token = _token(invite.invite or "")
            await first.store.admit(invite.id, token, self.nodes[name].joiner)
        mesh = first.store.mesh
        assert mesh is not None
        for name in names[1:]:
            host = self.nodes[name]
            await host.store.adopt(
                Admitted(
                    mesh_name=mesh.name,
                    mesh_id=mesh.id,
                    created=mesh.created,
                    swarm_key="",
                    cluster_secret="",
                    roster=first.store.roster(),
                )
            )
            await host.store.update_self(host.joiner)
        return self

    def pin(self, cid: str, *nodes: str, wanted: int | str = 2, held: tuple[str, ...] | None = None) -> Pin:
        """An entry that shall be on these nodes, and is, unless `held` names others."""
        ids = tuple(self.nodes[n].cluster_id for n in nodes)
        made = Pin(cid, f"{cid}.txt", "", f"root-{cid}", 10, 1.0, cast(Any, wanted), allocations=ids)
        self.pinset[cid] = made
        for name in nodes if held is None else held:
            self.nodes[name].held.add(cid)
        return made

    async def jitter(self) -> None:
        """Let the others go on for a while that differs from call to call."""
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)

    def fetch(self) -> None:
        """Whoever shall hold an entry and is able to gets it from somebody who has it."""
        for cid, pin in self.pinset.items():
            sources = [h for h in self.nodes.values() if cid in h.held and not h.gone and not h.away]
            for host in self.nodes.values():
                shall = not pin.allocations or host.cluster_id in pin.allocations
                if sources and shall and not (host.gone or host.away or host.slow or host.full):
                    host.held.add(cid)


class Gate:
    """What a node's kubo holds."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.fetching: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    async def held(self, cids: list[str]) -> set[str]:
        self._host.asked.set()
        self._host.world.fetch()
        return self._host.held.intersection(cids)


class SharedPinset:
    """The cluster of each node, as all of them agree in the end."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def version(self) -> str:
        return "1.1.6"

    async def with_room(self) -> set[str]:
        return {h.cluster_id for h in self._world.nodes.values()}

    async def pin(self, pin: Pin) -> None:
        await self._world.jitter()
        self._world.pinset[pin.cid] = pin
        self._world.commits.append(pin)

    async def unpin(self, cid: str) -> bool:
        await self._world.jitter()
        return self._world.pinset.pop(cid, None) is not None

    async def allocation(self, cid: str) -> Pin | None:
        await self._world.jitter()
        return self._world.pinset.get(cid)

    async def allocations(self) -> list[Pin]:
        await self._world.jitter()
        return list(self._world.pinset.values())


class Storage:
    """Room on the node itself."""

    def room(self) -> Room:
        return Room(total=ROOM, free=ROOM, reserve=0, inodes=None)

    def closed(self) -> str:
        return ""


class Host:
    """One node. away: nobody reaches it. full: it takes nothing new. slow: it fetches nothing until the test lets it."""

    def __init__(self, world: World, name: str) -> None:
        folder = world.folder / name
        folder.mkdir()
        pem = certificate.make(Ed25519PrivateKey.generate())
        self.world, self.name, self.cluster_id = world, name, f"cluster{name}"
        self.fingerprint = certificate.fingerprint_of(pem)
        self.joiner = Joiner(
            name=name,
            certificate=pem,
            address="10.0.0.1",
            peer_port=4010,
            swarm_port=4001,
            cluster_port=9096,
            kubo_id=f"kubo{name}",
            cluster_id=self.cluster_id,
        )
        self.held: set[str] = set()
        self.away = self.full = self.slow = self.gone = False
        self.asked = asyncio.Event()
        self.said: list[str] = []
        self.ahead_s = 0.0  # of the others' clocks
        self.store = MeshStore(folder, self.fingerprint, now=lambda: time.time() + self.ahead_s)
        anything = cast(Any, self)  # it is its own disk and line to the others
        cluster = SharedPinset(world)
        self.copies = Copies(cast(Any, Gate(self)), self.store, anything)
        nodes = Nodes(cluster, self.store, cast(Any, Storage()), self.peer_states)
        self.pinset = Listed(world.pinset.values)
        self.drain = Drain(
            pinset=cast(Any, self.pinset),
            store=self.store,
            copies=self.copies,
            nodes=nodes,
            committer=Committer(cluster, nodes, anything),
            waiter=Waiter(self.copies, nodes),
        )

    # -- the network -----------------------------------------------------------------------------------------------

    def _reach(self, member: Member) -> Host:
        other = next(h for h in self.world.nodes.values() if h.fingerprint == member.fingerprint)
        if other.away or other.gone or self.away:
            raise MeshError(Code.PEER_UNREACHABLE, f"cannot reach {member.name}", "no route to host")
        return other

    async def exchange(self, members: Any) -> set[str]:
        """As `Membership.exchange` does."""
        mine, heard = self.store.roster(), set()
        for member in members:
            await self.world.jitter()
            try:
                other = self._reach(member)
            except MeshError:
                continue
            await other.store.merge(mine)
            theirs = other.store.roster()
            await self.world.jitter()
            await self.store.merge(theirs)
            heard.add(member.fingerprint)
        return heard

    async def call(self, member: Member, verb: object, asked: ConfirmRequest) -> Confirmed:
        """As a peer answers which of these it holds."""
        assert verb is verbs.CONFIRM
        await self.world.jitter()
        return await self._reach(member).copies.local(asked.cids)

    def peer_states(self) -> list[PeerState]:
        states = []
        for member in self.store.peers():
            other = next(h for h in self.world.nodes.values() if h.fingerprint == member.fingerprint)
            here = not (other.away or other.gone)
            room = 0 if other.full else ROOM
            states.append(
                PeerState(
                    member.fingerprint,
                    member.name,
                    member.address,
                    reachable=here,
                    last_seen=1.0,
                    ready=here,
                    accepts=not other.full,
                    free_bytes=room,
                    problem="" if here else "no route to host",
                )
            )
        return states

    # -- its disk --------------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """All is durable here."""

    # -- leaving ---------------------------------------------------------------------------------------------------

    async def leave(self) -> MeshError | None:
        """Hand over, say goodbye, and be gone; what it was refused with."""
        everyone = self.store.peers()
        try:
            await self.drain.hand_over(self._say, self.exchange, self.resign)
        except MeshError as exc:
            return exc
        await self.exchange(everyone)
        self.gone = True
        self.held.clear()
        return None

    async def resign(self, relying_on: set[str]) -> None:
        """As `Membership.resign` does."""
        await self.store.forget(self.fingerprint, by=self.fingerprint, relying_on=relying_on)

    async def forget(self, name: str) -> None:
        """Somebody shuts a node out, and nobody gets anything from it any more. Raises MeshError as the real one."""
        member = self.store.by_name(name)
        assert member is not None
        await self.drain.forget(member, self.exchange, self.state_forgotten)

    async def state_forgotten(self, member: Member, relying_on: set[str]) -> wire.Forgotten:
        """As `Membership.forget` does."""
        await self.store.forget(member.fingerprint, by=self.fingerprint, relying_on=relying_on)
        out = self.world.nodes[member.name]
        out.gone = True
        out.held.clear()
        await self.exchange(self.store.peers())
        return wire.Forgotten(name=member.name)

    async def _say(self, event: wire.Wire) -> None:
        self.said.append(getattr(event, "message", ""))


def _token(line: str) -> str:
    return invites.decode(line, 0.0).token
