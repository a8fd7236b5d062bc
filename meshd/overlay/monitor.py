"""Monitors the private network: polls often while a change is awaited, else seldom."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from meshd.config import Overlay as Config
from meshd.model import OverlayState
from meshd.overlay import static
from meshd.overlay.addresses import addresses, on_this_machine
from meshd.overlay.assess import Seen, assess, first_look
from meshd.overlay.zerotier import Network, Peer, ZeroTier, ZeroTierError

QUICK_S = 0.5
QUIET_S = 3.0  # a revoked authorization is noticed by then
_JOIN_AGAIN_S = 30.0
_LOADING_S = 2.0  # the service answers 60 ms before it has read its networks (measured)
_LOG = structlog.get_logger(part="overlay")


@dataclass(frozen=True, slots=True)
class MeshOnOverlay:
    """What this room knows of the mesh. network: id of the mesh's ZeroTier network, "" for none.

    in_mesh: whether this node is in a mesh, on whichever network. names: ZeroTier address -> name of a member.
    """

    in_mesh: bool = False
    network: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


class Overlay:
    """The monitor. `state` is the result of the last poll. mesh: set from above, at each change of the mesh.

    address_since: monotonic seconds, when the address last came, changed or went.
    """

    def __init__(self, config: Config, zerotier: ZeroTier) -> None:
        self.state = OverlayState()
        self.zerotier = zerotier
        self.mesh = MeshOnOverlay()
        self.address_since = time.monotonic()
        self._config = config
        self._subscribers: list[Callable[[], None]] = []
        self._chosen = ""  # while this node begins or joins a mesh
        self._asking_since: dict[str, float] = {}
        self._not_joined_since: float | None = None
        self._joined_at: dict[str, float] = {}
        self._hurry = asyncio.Event()
        self._looked = asyncio.Condition()

    # -- which network ---------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """The kind of overlay in use: static or zerotier; auto while none is chosen."""
        return "zerotier" if self._on_zerotier else self._config.kind

    @property
    def network(self) -> str:
        """Id of the ZeroTier network to use: the mesh's, the one being joined, or the only configured one."""
        if wanted := self.mesh.network or self._chosen:
            return wanted
        configured = self._config.zerotier.networks
        return configured[0].id if len(configured) == 1 else ""

    @property
    def _on_zerotier(self) -> bool:
        named = self.mesh.network or self._chosen or self._config.zerotier.networks
        return self._config.kind == "zerotier" or (self._config.kind == "auto" and bool(named))

    @contextlib.contextmanager
    def choosing(self, network: str) -> Iterator[None]:
        """Use that network inside, as if the mesh were on it, and poll often: while a mesh is founded or joined."""
        self._chosen = network
        self._hurry.set()
        try:
            yield
        finally:
            self._chosen = ""

    # -- polling ---------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop after each change of `state`. It must neither block nor raise."""
        self._subscribers.append(callback)

    def local_address(self) -> str | None:
        """This node's address now; None while it has none."""
        return self.state.address

    def publish(self, found: OverlayState) -> None:
        """Set the state, and call the subscribers where it has changed."""
        before, self.state = self.state, found
        if found == before:
            return
        if found.address != before.address:
            self.address_since = time.monotonic()
            _LOG.info("overlay", address=found.address, interface=found.interface, why=found.why)
        for callback in self._subscribers:
            callback()

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            self._hurry.clear()
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a bug in one poll must not end the node; it is logged
                _LOG.exception("a look at the overlay failed")
            async with self._looked:
                self._looked.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s):
                    await self._hurry.wait()

    async def ways(self) -> dict[str, Peer]:
        """How ZeroTier reaches other nodes: ZeroTier address -> peer. Empty on another overlay, or without answer."""
        if not self._on_zerotier:
            return {}
        try:
            return {peer.address: peer for peer in await self.zerotier.peers()}
        except ZeroTierError:
            return {}  # the overlay's own condition reports it

    async def next_look(self) -> None:
        """Return once the next poll is made and published."""
        async with self._looked:
            await self._looked.wait()

    @property
    def _pause_s(self) -> float:
        return QUICK_S if self._chosen else QUIET_S

    async def look(self) -> OverlayState:
        """Poll once. The state has an address only if it can be bound at this moment."""
        if self._on_zerotier:
            found = await self._look_at_zerotier()
        else:
            found = await asyncio.to_thread(static.look, self._config)
            unknown = found.problem is not None and found.problem.code == "overlay-unknown"
            if unknown and not self.mesh.in_mesh:
                found = await self._with_zerotier(found)
        self.publish(found)
        return found

    async def _with_zerotier(self, nothing: OverlayState) -> OverlayState:
        """The state of a machine with ZeroTier and no other private network: what most people want to know first."""
        interfaces = await asyncio.to_thread(addresses)
        try:
            node = (await self.zerotier.status()).address
            networks = tuple(await self.zerotier.networks())
        except ZeroTierError as exc:
            return first_look(Seen("", interfaces=interfaces, error=exc), nothing)
        return first_look(Seen("", networks=networks, node=node, interfaces=interfaces), nothing)

    async def _look_at_zerotier(self) -> OverlayState:
        wanted = self.network
        try:
            status = await self.zerotier.status()
            networks = tuple(await self.zerotier.networks())
            if self._may_be_loading(wanted, networks):
                raise ZeroTierError(
                    "zerotier-starting",
                    "ZeroTier One has just started",
                    "it is reading its networks",
                    "wait a moment",
                )
            await self._join_by_itself({n.id for n in networks})
        except ZeroTierError as exc:
            interfaces = await asyncio.to_thread(addresses)
            return assess(Seen(wanted, interfaces=interfaces, error=exc), self.state)
        if self.state.node and status.address != self.state.node:
            _LOG.warning("ZeroTier on this machine is another node now", node=status.address)
        found = assess(
            Seen(
                wanted=wanted,
                controller=self.mesh.names.get(wanted[:10], "") if wanted else "",
                networks=networks,
                node=status.address,
                online=status.online,
                interfaces=await asyncio.to_thread(addresses),
                requesting_s=self._requesting_s(wanted, networks),
            ),
            self.state,
        )
        if found.address is not None and not await asyncio.to_thread(on_this_machine, found.address):
            return found.having(problem=static.not_on_this_machine(found.address))
        return found

    def _may_be_loading(self, wanted: str, networks: tuple[Network, ...]) -> bool:
        """Whether a missing network may just not be loaded yet: it counts as left only after a while."""
        if not wanted or any(n.id == wanted for n in networks):
            self._not_joined_since = None
            return False
        now = time.monotonic()
        self._not_joined_since = self._not_joined_since or now
        return now - self._not_joined_since < _LOADING_S

    def _requesting_s(self, wanted: str, networks: tuple[Network, ...]) -> float:
        asking = {n.id for n in networks if n.status in ("REQUESTING_CONFIGURATION", "")}
        now = time.monotonic()
        self._asking_since = {i: self._asking_since.get(i, now) for i in asking}
        return now - self._asking_since.get(wanted, now)

    async def _join_by_itself(self, joined: set[str]) -> None:
        """Join the networks that the configuration says to join."""
        for network in self._config.zerotier.networks:
            now = time.monotonic()
            due = now - self._joined_at.get(network.id, -_JOIN_AGAIN_S) >= _JOIN_AGAIN_S
            if network.auto_join and network.id not in joined and due:
                self._joined_at[network.id] = now
                _LOG.info("joining the network, as configured", network=network.id)
                await self.zerotier.join(network.id)
