"""Builds this room's parts and connects them. What the daemon needs of them is a field of `Mesh`."""

from __future__ import annotations

from meshd.cluster.wiring import EngineRoom
from meshd.component import Component, Loop, Stop, StopPhase
from meshd.conditions import FactSource
from meshd.config import Config
from meshd.mesh import state_check
from meshd.mesh.address_book import AddressBook
from meshd.mesh.engine_settings import EngineSettings
from meshd.mesh.facts import MeshFacts
from meshd.mesh.heartbeat import Heartbeats
from meshd.mesh.identity import Identity
from meshd.mesh.member_calls import MemberCalls
from meshd.mesh.membership import Membership
from meshd.mesh.network_admin import NetworkAdmin
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.seeds import Seeds
from meshd.mesh.state_files import STATE_FILES
from meshd.mesh.store import MeshStore
from meshd.overlay.monitor import Overlay

_ADDRESS_EVERY_S = 2.0
_NETWORK_EVERY_S = 2.0


class Mesh:
    """The whole room. Its construction blocks: reads and creates state. Raises MeshError BAD_STATE."""

    def __init__(self, config: Config, overlay: Overlay, engine_room: EngineRoom) -> None:
        state, private, engines = config.state, config.private_sockets, engine_room.engines
        self.identity = Identity.load_or_create(state)
        self.store = store = MeshStore(state, self.identity.fingerprint)
        self.secret_store = SecretStore(state, private)
        state_check.check(state, store.mesh, self.identity.fingerprint, self.secret_store)
        engine_room.make_folders()  # not before the state folder is checked
        if store.mesh is not None and not store.forgotten:
            self.secret_store.settle(
                store.mesh.secrets,
                lambda: engines.take_secrets_off_the_disk(self.secret_store.handed_over(), private),
            )
        self.admin = NetworkAdmin(config, store, overlay)
        self.settings = EngineSettings(config, store, self.secret_store, engines.cluster)
        address_book = AddressBook(state / "addresses.json")
        self.peers = PeerClient(self.identity, overlay.local_address, address_book)
        self.heartbeats = Heartbeats(store, self.peers, seen_file=state / "seen.json")
        self.seeds = Seeds(
            seeds=config.mesh.seeds,
            port=config.ports.peer,
            store=store,
            peers=self.peers,
            address_book=address_book,
            heartbeats=self.heartbeats,
            local_address=overlay.local_address,
        )
        self.membership = Membership(
            config=config,
            identity=self.identity,
            store=store,
            secret_store=self.secret_store,
            peers=self.peers,
            overlay=overlay,
            engines=engines,
        )

    def component(self) -> Component:
        """This room as a component."""
        store, membership = self.store, self.membership
        facts = {
            "in_mesh": lambda: store.mesh is not None,
            "mesh_name": lambda: store.mesh.name if store.mesh is not None else "",
            "leaving": lambda: store.mesh is not None and bool(store.me().leaving_since),
            "forgotten_by": self._forgotten_by,
            "moved_from": lambda: membership.moved_from,
            "peers": self.heartbeats.states,
            "deauthorized": lambda: self.admin.deauthorized,
        }
        return Component(
            name="mesh",
            loops=(
                Loop("heartbeats", self.heartbeats.run, "the other nodes are not heard"),
                Loop("seeds", self.seeds.run, "members at new addresses are not looked for"),
                Loop(
                    "address",
                    membership.follow_address,
                    "a change of this node's address is not told to the others",
                    period_s=_ADDRESS_EVERY_S,
                ),
                Loop(
                    "network",
                    self._look_at_network,
                    "who was taken off the network is not looked at",
                    period_s=_NETWORK_EVERY_S,
                ),
            ),
            stops=(Stop("the client of the other nodes", StopPhase.CLIENTS, self.peers.close),),
            peer_routes=MemberCalls(store, self.heartbeats).routes(),
            facts=(FactSource(MeshFacts, facts),),
            state_files=STATE_FILES,
        )

    async def _look_at_network(self) -> None:
        """Ask this machine's controller, where it is the network's, which away members it no longer authorizes."""
        await self.admin.look_for_deauthorized(self.heartbeats.states())

    def _forgotten_by(self) -> str:
        """The name of the member that forgot this node; "" while this node is a member."""
        if self.store.mesh is None or not self.store.forgotten:
            return ""
        return self.store.name_of(self.store.me().forgotten_by) or "a member"
