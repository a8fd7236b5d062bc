"""One node: builds every part, and joins them. How it runs and ends is in lifecycle.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from meshd import files
from meshd.cluster.redial import Redialer
from meshd.cluster.rest import Cluster
from meshd.cluster.service import ClusterProgram
from meshd.config import Config
from meshd.control.access import Gatekeeper
from meshd.control.doctor import DoctorApi
from meshd.control.mesh import MeshApi
from meshd.control.pins import PinsApi
from meshd.control.requests import RequestsApi
from meshd.control.routes import table
from meshd.control.server import ControlServer
from meshd.control.status import StatusApi
from meshd.health.audit import Audit
from meshd.health.board import Board
from meshd.health.examine import Examination
from meshd.health.gather import Gathering
from meshd.health.notices import Notices
from meshd.health.programs import Programs
from meshd.health.telling import Teller
from meshd.kubo.rpc import Kubo
from meshd.kubo.service import KuboProgram
from meshd.leaving import Leaving
from meshd.mesh import belongings
from meshd.mesh.by_network import ByNetwork
from meshd.mesh.identity import Identity
from meshd.mesh.membership import Membership
from meshd.mesh.network_admin import NetworkAdmin
from meshd.mesh.peers import Peers
from meshd.mesh.secret_store import SecretStore
from meshd.mesh.secrets import Secrets
from meshd.mesh.seeds import Seeds
from meshd.mesh.store import MeshStore
from meshd.mesh.watch import Watch
from meshd.mesh.whereabouts import Whereabouts
from meshd.metrics import MetricsServer
from meshd.overlay.follow import Overlay
from meshd.overlay.zerotier import ZeroTier
from meshd.peer.scrape import Scrape
from meshd.peer.server import PeerServer
from meshd.pins.parts import Outside, Pins
from meshd.rounds import Rounds
from meshd.service_manager import ServiceManager
from meshd.supervise.groups import Groups
from meshd.turns import Turns

_SETTLED_S = 15.0  # after a start nobody is called away who was not asked yet
_MIGRATION_STEP_S = 120.0  # asked of systemd again at each turn, while a repository is brought up to date


class Node:
    """Everything that depends on who this node is. After `leave` another one is built."""

    def __init__(
        self, config: Config, manager: ServiceManager | None = None, groups: Groups | None = None
    ) -> None:
        """Blocks: reads and creates state. Raises MeshError BAD_STATE."""
        state, private = config.state, config.private_sockets
        self.config = config
        self.manager = manager or ServiceManager()
        self._groups = groups
        self._built = time.monotonic()
        self.rounds = Rounds()
        self.identity = Identity.load_or_create(state)
        self.store = MeshStore(state, self.identity.fingerprint)
        self.secret_store = SecretStore(state, private)
        belongings.check(state, self.store.mesh, self.identity.fingerprint, self.secret_store)
        kubo_repo = files.private_directory(state / "kubo")
        cluster_folder = files.private_directory(state / "cluster")
        zerotier = ZeroTier(config.overlay.zerotier)
        self.overlay = Overlay(
            config.overlay,
            zerotier,
            self._network,
            lambda node: self.admin.member(node),
            lambda: self.store.mesh is not None,
        )
        self.admin = NetworkAdmin(config, self.store, self.overlay)
        self.kubo = Kubo(private / "kubo.sock")
        self.cluster = Cluster(private / "cluster.sock")
        self.whereabouts = Whereabouts(state / "addresses.json")
        self.peers = Peers(self.identity, lambda: self.turns.overlay.address, self.whereabouts)
        self.pins = Pins(
            Outside(
                config=config,
                store=self.store,
                peers=self.peers,
                kubo=self.kubo,
                cluster=self.cluster,
                content=(kubo_repo, cluster_folder, state),
                peer_states=lambda: self.watch.states(),
                ready=lambda: self.turns.ready,
            )
        )
        duties = self.pins.duties
        self.watch = Watch(
            self.store,
            self.peers,
            duties.beat,
            on_removals=duties.fetch_removals,
            seen_file=state / "seen.json",
        )
        self.seeds = Seeds(
            config.mesh.seeds,
            config.ports.peer,
            self.store,
            self.peers,
            self.whereabouts,
            self.watch.states,
            lambda: self.turns.overlay.address,
            self.watch.poke,
        )
        self.peer_server = PeerServer(
            self.identity,
            self.store,
            self.secret_store.load,
            duties,
            on_joined=lambda _: self.watch.poke(),
            on_beat=self.watch.heard,
            count_entries=self.pins.catalogue.count,
            scrape=Scrape(config.metrics.peer_token_file, lambda: self.status.exposition()),
        )
        self.kubo_program = KuboProgram(kubo_repo, self.kubo, config.paths.engines, state)
        self.cluster_program = ClusterProgram(cluster_folder, self.cluster, config.paths.engines, state)
        self.programs = Programs(self.kubo_program.find, self.cluster_program.find)
        if self.store.mesh is not None and not self.store.forgotten:
            self.secret_store.settle(self.store.mesh.secrets, self._take_secrets_off_the_disk)
        self.turns = Turns(
            config,
            self.store,
            self.secret_store,
            self.kubo,
            self.kubo_program,
            self.cluster_program,
            self.peer_server,
            self.pins.uploads.abort_all,
            self._recover,
            self.pins.storage.full,
            self._turned,
            groups,
        )
        self.redialer = Redialer(
            self.cluster_program,
            lambda: self.store.me().cluster_id,
            self._answering,
            lambda: bool(self.membership.moved_from),
            self.turns.wake,
        )
        self.membership = Membership(
            config,
            self.identity,
            self.store,
            self.secret_store,
            self.peers,
            lambda: self.turns.overlay,
            self.programs.find,
            self._create_engines,
            lambda: self.status.why_not_ready(),
            self.pins.catalogue.count,
            ByNetwork(config, self.overlay),
        )
        self.board = Board()
        self.teller = Teller(config.notify.command, self._who)
        self.board.listeners.append(self.teller.heard)
        self.notices = Notices(state / "notices.json", self.store)
        self.audit = Audit(
            self.turns.services,
            self._engine_ports(),
            lambda: self.turns.overlay.address,
            self.kubo,
            self.turns.kubo_place,
            self._kubo_ids,
            self._secret_files,
            state,
            self.rounds,
        )
        self.pins.storage.broken = self._why_unwritable
        self._gathering = Gathering(self._sources())
        self._build_control()

    def _build_control(self) -> None:
        config, pins = self.config, self.pins
        self.status = StatusApi(
            config,
            self.store,
            self.secret_store,
            self.membership,
            self.turns,
            self.board,
            self.notices,
            pins,
            self.kubo,
            self.watch.states,
            lambda: {"kubo": self.kubo_program.version, "cluster": self.cluster_program.version},
            self.overlay,
        )
        self.examination = Examination(
            self.turns.services,
            self._engine_ports(),
            lambda: self.turns.overlay,
            self.kubo,
            self.turns.kubo_place,
            self.turns.cluster_place,
            config.state / "cluster" / "service.json",
            self._kubo_ids,
            self._secret_files,
            self.board,
            lambda: self.store.mesh is not None,
        )
        self.leaving = Leaving(
            config,
            self.store,
            self.secret_store,
            self.membership,
            self.turns,
            pins,
            self.overlay.zerotier,
            self.status.why_not_ready,
        )
        routes = table(
            self.status,
            MeshApi(self.membership, self.store, self.status, self.leaving, self.admin, self.seeds),
            RequestsApi(lambda: self.peer_server.approval, self.admin),
            PinsApi(pins.catalogue, pins.adder, pins.content, pins.remover),
            DoctorApi(self.examination),
        )
        keeper = Gatekeeper(config.control, self._child_pids, self._in_childs_group)
        self.control = ControlServer(config.control_socket, routes, keeper)
        self.metrics_port: MetricsServer | None = None
        if config.metrics.listen:
            handlers = {
                "/metrics": self.status.metrics,
                "/healthz": self.status.healthz,
                "/readyz": self.status.readyz,
            }
            self.metrics_port = MetricsServer(config.metrics.listen, handlers)

    def reload(self, config: Config) -> None:
        """Take over from `config` what can change while the node runs: RELOADED names it."""
        self.pins.storage.reserve = config.storage.reserve
        self.pins.storage.offer = config.storage.offer

    def _turned(self) -> None:
        self.manager.turned()
        if self.turns.migration:
            self.manager.needs(_MIGRATION_STEP_S)
        self.manager.status(self.status.why_not_ready() or "ready")

    # -- what parts ask of each other ------------------------------------------------------------------------------

    def _why_unwritable(self) -> str:
        return self.audit.unwritable or self.pins.disk.failed

    def _answering(self) -> dict[str, str]:
        """As `Redialer` wants its peers."""
        ids = {m.fingerprint: m.cluster_id for m in self.store.peers()}
        there = {ids.get(p.fingerprint) for p in self.watch.states() if p.reachable and p.ready}
        return {i: where for i, where in self.turns.cluster_peers().items() if i in there}

    def _child_pids(self) -> list[int]:
        return [s.state.pid for s in self.turns.services.values() if s.state.pid is not None]

    def _in_childs_group(self, membership: str) -> bool:
        return self._groups is not None and self._groups.holds(membership)

    def _engine_ports(self) -> dict[str, int]:
        return {"kubo": self.config.ports.swarm, "cluster": self.config.ports.cluster}

    def _kubo_ids(self) -> set[str]:
        return {m.kubo_id for m in self.store.members()}

    def _secret_files(self) -> list[Path]:
        state = self.config.state
        files_of_secrets = [
            self.identity.key_file,
            state / "mesh.json",
            Secrets.swarm_key_file(state),
            state / "secrets" / "cluster.secret",
            state / "kubo" / "swarm.key",
            state / "kubo" / "config",
            state / "cluster" / "service.json",
            state / "cluster" / "identity.json",
        ]
        return [
            path for path in files_of_secrets if not path.is_symlink()
        ]  # a link leads to this unit's memory

    def _who(self) -> dict[str, str]:
        mesh = self.store.mesh
        return {
            "node": self.store.me().name if mesh else self.config.node.name,
            "mesh": mesh.name if mesh else "",
        }

    def _network(self) -> str:
        return self.store.mesh.network if self.store.mesh is not None else ""

    def _take_secrets_off_the_disk(self) -> None:
        self.kubo_program.link_swarm_key(self.secret_store.handed_over())
        self.cluster_program.move_secret(self.config.private_sockets)

    async def _create_engines(self) -> tuple[str, str]:
        return await self.kubo_program.create(), await self.cluster_program.create()

    async def _recover(self) -> None:
        self.watch.poke()  # the others may place copies here from now on
        await self.cluster.recover()
        await self.pins.sweeper.sweep()

    # -- running ---------------------------------------------------------------------------------------------------

    async def retire(self, *, replaced: bool) -> None:
        """Answer no more on the control socket; replaced: another node does."""
        self.leaving.replaced.set()
        await self.control.stop(replaced=replaced)

    async def look_at_network(self) -> None:
        """Ask the network's controller, where that is here, who of those that are away is not authorized any more."""
        await self.admin.look_for_deauthorized(self.watch.states())

    async def update_board(self) -> None:
        self.board.update(self._gathering.facts(time.time(), self.rounds.faults()))

    def _sources(self) -> dict[str, Callable[[], object]]:
        """Where each of health.facts comes from."""
        store, pins, turns, audit = self.store, self.pins, self.turns, self.audit
        return {
            "settled": lambda: time.monotonic() - max(self._built, turns.address_since) > _SETTLED_S,
            "in_mesh": lambda: store.mesh is not None,
            "mesh_name": lambda: store.mesh.name if store.mesh is not None else "",
            "forgotten_by": self._forgotten_by,
            "leaving": lambda: store.mesh is not None and bool(store.me().leaving_since),
            "overlay": lambda: turns.overlay,
            "moved_from": lambda: self.membership.moved_from,
            "services": lambda: {name: s.state for name, s in turns.services.items()},
            "peers": self.watch.states,
            "deauthorized": lambda: self.admin.deauthorized,
            "unusable": lambda: self.programs.unusable,
            "joined": self.notices.unread,
            "asking": lambda: tuple((r.id, r.name, r.address) for r in self.peer_server.approval.views()),
            "unreadable": pins.storage.unreadable,
            "full": lambda: "" if pins.storage.unreadable() else pins.storage.full(),
            "trash": lambda: len(pins.journal.all()),
            "unwritable": self._why_unwritable,
            "drift": lambda: audit.drift,
            "strangers": lambda: audit.strangers,
            "open_files": lambda: audit.open_files,
            "listen_error": lambda: turns.listen_error,
            "short": lambda: pins.replicator.short,
            "lost": lambda: pins.replicator.lost,
        }

    def _forgotten_by(self) -> str:
        """The name of who made the mesh forget this node; "" while it is a member."""
        if self.store.mesh is None or not self.store.forgotten:
            return ""
        return self.store.name_of(self.store.me().forgotten_by) or "a member"
