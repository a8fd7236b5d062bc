"""Peer discovery on a ZeroTier network, without multicast. It finds candidate addresses; the caller asks who answers.

In this order: hosts of the configuration; addresses derived from the ids of the nodes that ZeroTier talks to (where
the network has rfc4193 IPv6); last, where it is not turned off, a scan of every address of a managed route of at most
a /22, a few dozen a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterable, Sequence

import structlog

from meshd.config.zerotier import Network as Config
from meshd.model import OverlayState
from meshd.overlay.addresses import is_private
from meshd.overlay.zerotier import Network, Peer, ZeroTier, ZeroTierError

PROBE_MOST = 1024  # addresses: a /22
_PROBE_RATE = 64  # a second
_PROBE_AT_ONCE = 64  # most addresses do not answer, and each costs a second of waiting
_PROBE_TIMEOUT_S = 1.0
_PROBE_AGAIN_S = 60.0
_LOOK_EVERY_S = 2.0
_LOG = structlog.get_logger(part="overlay")


def rfc4193(network: str, node: str) -> str:
    """The IPv6 address of `node` (10 hex digits) on `network` (16) in ZeroTier's rfc4193 mode. Pure.

    It is fd, the network's id, 9993, the node's id. Measured: a325774dfb000001, 87d8277670:
    fda3:2577:4dfb:0:199:9387:d827:7670.
    """
    return str(ipaddress.IPv6Address(bytes.fromhex("fd" + network + "9993" + node)))


def has_rfc4193(network: Network, node: str) -> bool:
    """Whether this node itself has the address that its ids give. Pure."""
    mine = rfc4193(network.id, node)
    return any(a.partition("/")[0] == mine for a in network.addresses)


def known(config: Config, network: Network, node: str, peers: Iterable[Peer]) -> list[str]:
    """Configured hosts on the network, then the addresses of ZeroTier's own peers. Pure."""
    found = [a for a in config.prefer_hosts if is_private(a) and _inside(a, network)]
    if has_rfc4193(network, node):
        found += [rfc4193(network.id, p.address) for p in peers if p.role in ("LEAF", "MOON")]
        found.append(
            rfc4193(network.id, network.id[:10])
        )  # its controller: /peer lists only nodes that have talked (measured)
    return [a for a in dict.fromkeys(found) if a != rfc4193(network.id, node)]


def probed(network: Network, own: Iterable[str]) -> list[str]:
    """The addresses to scan: those of the network's own private, small routes, without this node's. Pure."""
    mine = set(own)
    found: list[str] = []
    for route in network.routes:
        try:
            range_ = ipaddress.ip_network(route.target, strict=False)
        except ValueError:
            continue
        if route.via is not None or range_.version != 4 or range_.num_addresses > PROBE_MOST:
            continue  # a route over a gateway leads out of the overlay
        if not is_private(str(range_.network_address)) or not is_private(str(range_.broadcast_address)):
            continue
        found += [a for a in map(str, range_.hosts()) if a not in mine]
    return list(dict.fromkeys(found))[:PROBE_MOST]


def _inside(address: str, network: Network) -> bool:
    """Whether the kernel would route an address into the network: by its routes, or the ranges of its addresses."""
    ip = ipaddress.ip_address(address)
    ranges = [r.target for r in network.routes if r.via is None] + list(network.addresses)
    for text in ranges:
        with contextlib.suppress(ValueError):
            if ip in ipaddress.ip_interface(text).network:
                return True
    return False


class Discovery:
    """Discovers peers on one network while its context is entered. `found` grows meanwhile."""

    def __init__(
        self, config: Config, zerotier: ZeroTier, overlay: Callable[[], OverlayState], port: int
    ) -> None:
        """port: of the members' peer API, assumed to be the same as this node's."""
        self._config = config
        self._zerotier = zerotier
        self._overlay = overlay
        self._port = port
        self._sure: list[str] = []
        self._answered: list[str] = []
        self._looking: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")

    async def __aenter__(self) -> Discovery:
        self._looking = asyncio.create_task(self._look_again_and_again(), name="seek")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._looking, self._probing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def found(self) -> list[tuple[str, int]]:
        """The candidates as (host, port), the most likely first. Empty while this node has no address there."""
        return [(a, self._port) for a in dict.fromkeys([*self._sure, *self._answered])]

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self._look()
            except ZeroTierError as exc:  # the overlay's condition reports it; earlier finds stay valid
                _LOG.info("cannot look for members now", error=str(exc))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        state = self._overlay()
        if state.address is None or state.network != self._config.id:
            return
        network = await self._zerotier.network(self._config.id)
        if network is None:
            return
        self._sure = known(self._config, network, state.node, await self._zerotier.peers())
        if self._config.probe and (self._probing is None or self._probing.done()):
            self._probe_sometimes(network, state.address)

    def _probe_sometimes(self, network: Network, local: str) -> None:
        if time.monotonic() - self._probed_at < _PROBE_AGAIN_S or ":" in local:
            return
        targets = probed(network, [a.partition("/")[0] for a in network.addresses])
        if targets:
            self._probed_at = time.monotonic()
            self._probing = asyncio.create_task(self._probe(targets, local), name="probe")

    async def _probe(self, targets: Sequence[str], local: str) -> None:
        """Connect to the peer API's port of each target and hang up, without sending anything."""
        _LOG.info("looking for members", network=self._config.id, addresses=len(targets), port=self._port)
        free = asyncio.Semaphore(_PROBE_AT_ONCE)

        async def knock(address: str) -> None:
            async with free:
                try:
                    async with asyncio.timeout(_PROBE_TIMEOUT_S):
                        _, writer = await asyncio.open_connection(address, self._port, local_addr=(local, 0))
                except OSError:  # nobody listens there; TimeoutError is an OSError, too
                    return
                writer.transport.abort()
                if address not in self._answered:
                    self._answered.append(address)

        async with asyncio.TaskGroup() as group:
            for address in targets:
                group.create_task(knock(address))
                await asyncio.sleep(1 / _PROBE_RATE)
