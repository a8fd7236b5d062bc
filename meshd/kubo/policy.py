"""The private-swarm rules for kubo as one table: key, required value, why.

They are applied to the repository's config before every start, and read back from the running program. Facts are from
kubo 0.43.0, measured unless said otherwise.
"""

from __future__ import annotations

import copy
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "LIBP2P_FORCE_PNET": "1",  # libp2p refuses to start without a swarm key
    "IPFS_TELEMETRY": "off",
}


@dataclass(frozen=True, slots=True)
class KuboEndpoint:
    """Where kubo listens: its overlay address and port, and its RPC socket."""

    address: str
    port: int
    rpc_socket: Path


@dataclass(frozen=True, slots=True)
class Rule:
    """`key` (dotted path in kubo's config) must have `value`, because `why`."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Violation:
    rule: Rule
    found: Any

    def __str__(self) -> str:
        return f"{self.rule.key} is {self.found!r}, must be {self.rule.value!r}: {self.rule.why}"


def multiaddr(address: str, port: int) -> str:
    """`/ip4/10.0.0.1/tcp/4001`, or ip6."""
    version = ipaddress.ip_address(address).version
    return f"/ip{version}/{address}/tcp/{port}"


_FIXED = (
    Rule("Addresses.Gateway", [], "a gateway on TCP could be used by every local user and by web pages"),
    Rule("Addresses.Announce", [], "only the overlay address is ever told to others"),
    Rule("Addresses.AppendAnnounce", [], "only the overlay address is ever told to others"),
    Rule("Addresses.NoAnnounce", [], "filters for private ranges would hide the overlay itself"),
    Rule("Swarm.AddrFilters", [], "filters for private ranges would cut the overlay off"),
    Rule("API.Authorizations", {}, "the socket's folder is the lock; nobody is given another key"),
    Rule("Gateway.NoFetch", True, "a gateway, if one ever ran, must not fetch for strangers"),
    Rule(
        "AutoConf.Enabled", False, "it asks a server on the Internet; with a swarm key kubo refuses to start"
    ),
    Rule("Bootstrap", [], "there are no public peers in a private swarm"),
    Rule("Routing.Type", "none", "no DHT: members are known from the roster"),
    Rule("Routing.DelegatedRouters", [], "no questions about content to servers outside"),
    Rule("Ipns.DelegatedPublishers", [], "nothing is published outside"),
    Rule("DNS.Resolvers", {}, "no names are asked of resolvers outside"),
    Rule("Discovery.MDNS.Enabled", False, "multicast would tell the LAN about this node"),
    Rule("Swarm.DisableNatPortMap", True, "the router must not be opened"),
    Rule("Swarm.RelayClient.Enabled", False, "no strangers' relays"),
    Rule("Swarm.RelayService.Enabled", False, "no relaying for others"),
    Rule("Swarm.EnableHolePunching", False, "it needs relays; on with the relay client off is fatal"),
    Rule("Swarm.Transports.Network.TCP", True, "a swarm key works over TCP alone"),
    Rule("Swarm.Transports.Network.QUIC", False, "QUIC cannot use the swarm key, and is UDP"),
    Rule("Swarm.Transports.Network.WebTransport", False, "as QUIC"),
    Rule("Swarm.Transports.Network.WebRTCDirect", False, "as QUIC"),
    Rule("Swarm.Transports.Network.Websocket", False, "it cannot use the swarm key"),
    Rule("Swarm.Transports.Network.Relay", False, "no relays"),
    Rule("AutoNAT.ServiceMode", "disabled", "it dials addresses that others name"),
    Rule("AutoTLS.Enabled", False, "it asks a server on the Internet for a certificate"),
    Rule("HTTPRetrieval.Enabled", False, "blocks come from members only"),
    Rule("Provide.Enabled", False, "nothing is announced"),
    Rule("Version.SwarmCheckEnabled", False, "no comparisons with strangers' versions"),
    Rule("Pubsub.Enabled", False, "not used"),
    Rule("Experimental.FilestoreEnabled", False, "content must be in the repository to survive its original"),
    Rule("Experimental.UrlstoreEnabled", False, "content never comes from the web"),
    Rule("Experimental.Libp2pStreamMounting", False, "members get no tunnels into this machine"),
    Rule("Experimental.P2pHttpProxy", False, "members get no tunnels into this machine"),
    Rule("Internal.ShutdownTimeout", "20s", "12 h by default; below the stop time-out it ends in order"),
    Rule("Datastore.GCPeriod", "1h", "garbage collection by kubo itself stays off (no --enable-gc)"),
    Rule("Import.CidVersion", 1, "the same bytes give the same root on every node (unixfs-v1-2025)"),
    Rule("Import.UnixFSRawLeaves", True, "unixfs-v1-2025"),
    Rule("Import.UnixFSChunker", "size-1048576", "unixfs-v1-2025"),
    Rule("Import.HashFunction", "sha2-256", "unixfs-v1-2025"),
)


def rules(place: KuboEndpoint) -> tuple[Rule, ...]:
    """All rules for a kubo at `place`."""
    return (
        Rule("Addresses.API", f"/unix{place.rpc_socket}", "RPC on TCP could be driven by every local user"),
        Rule(
            "Addresses.Swarm", [multiaddr(place.address, place.port)], "listens on the overlay address only"
        ),
        *_FIXED,
    )


def apply(config: dict[str, Any], place: KuboEndpoint) -> dict[str, Any]:
    """A copy of kubo's config in which every rule holds. All else, the identity above all, stays as it was."""
    result = copy.deepcopy(config)
    for rule in rules(place):
        *parents, last = rule.key.split(".")
        section = result
        for part in parents:
            if not isinstance(section.get(part), dict):
                section[part] = {}
            section = section[part]
        section[last] = copy.deepcopy(rule.value)
    return result


def audit(config: dict[str, Any], place: KuboEndpoint) -> list[Violation]:
    """The rules that a config, as the running kubo reports it, violates."""
    found = []
    for rule in rules(place):
        value: Any = config
        for part in rule.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value != rule.value and not (not rule.value and _empty(rule.value, value)):
            found.append(Violation(rule, value))
    return found


def _empty(required: Any, value: Any) -> bool:
    """Whether a null stands for the required value: kubo writes an empty list or map so in places, but never false."""
    return not isinstance(required, bool) and value is None
