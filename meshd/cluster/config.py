"""ipfs-cluster's service.json for a private node, as one table: key, required value, why. Facts measured on 1.1.6."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshd.kubo.policy import Rule, multiaddr


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where ipfs-cluster listens, and its peers.

    trusted: cluster peer ids of the roster, without this node's own. peers: multiaddrs with /p2p/ of the others; new
    ones alone cause no restart (see redial.py), but a new `redials` does. secret: 64 hex digits; never shown.
    """

    address: str
    port: int
    rest_socket: Path
    gate_socket: Path
    name: str
    mesh_id: str
    secret: str
    trusted: tuple[str, ...]
    peers: tuple[str, ...]
    redials: int = 0

    def __repr__(self) -> str:
        return f"ClusterSettings({self.address}:{self.port}, {len(self.trusted)} trusted)"


AS_OF_ITS_START = frozenset({"cluster.peer_addresses"})  # keys that may be out of date while it runs


def rules(place: ClusterSettings) -> tuple[Rule, ...]:
    """A rule for every key that must not stay at its default."""
    return (
        Rule("cluster.peername", place.name, "logs of the other nodes name this one"),
        Rule("cluster.secret", place.secret, "without it anyone on the overlay could join"),
        Rule(
            "cluster.listen_multiaddress",
            [multiaddr(place.address, place.port)],
            "TCP on the overlay address only",
        ),
        Rule("cluster.announce_multiaddress", [], "only the overlay address is told to others"),
        Rule("cluster.enable_relay_hop", False, "no relaying"),
        Rule("cluster.peer_addresses", list(place.peers), "members are known from the roster"),
        Rule("cluster.mdns_interval", "0s", "multicast would tell the LAN about this node"),
        Rule(
            "cluster.disable_repinning",
            True,
            "it copies after 31 s of outage with no grace; meshd does it itself",
        ),
        Rule("cluster.leave_on_shutdown", False, "a stop is not a farewell"),
        Rule("cluster.pin_recover_interval", "2m0s", "what kubo refused or lost is tried again"),
        Rule("cluster.state_sync_interval", "2m0s", "what was missed while kubo was away is found"),
        Rule("cluster.follower_mode", False, "every member may add"),
        Rule("consensus.crdt.cluster_name", f"meshd-{place.mesh_id}", "two meshes on one overlay stay apart"),
        Rule("consensus.crdt.trusted_peers", list(place.trusted), "a member is who the roster says"),
        Rule(
            "consensus.crdt.batching", {"max_batch_size": 200, "max_batch_age": "25ms"}, "a burst converges"
        ),
        Rule(
            "consensus.crdt.rebroadcast_interval", "5s", "by default a missed head is told again after 108 s"
        ),
        Rule("ipfs_connector.ipfshttp.node_multiaddress", f"/unix{place.gate_socket}", "never kubo itself"),
        Rule("ipfs_connector.ipfshttp.connect_swarms_delay", "1s", "30 s by default"),
        Rule(
            "ipfs_connector.ipfshttp.pin_timeout", "10m0s", "without progress for so long a fetch is given up"
        ),
        Rule("pin_tracker.stateless.concurrent_pins", 50, "a burst is faster (7 s instead of 10 for 1,000)"),
        Rule("monitor.pubsubmon.check_interval", "5s", "who is gone is seen sooner"),
        Rule("informer.disk.metric_ttl", "4s", "a pin just after a start waits for this metric"),
        Rule("informer.tags.metric_ttl", "4s", "as above"),
        Rule("allocator.balanced.allocate_by", ["freespace"], "meshd chooses the nodes itself"),
        Rule("observations.metrics.enable_stats", False, "no port"),
        Rule("observations.tracing.enable_tracing", False, "no reports elsewhere"),
    )


_REST = {
    "http_listen_multiaddress": "",
    "read_timeout": "0s",
    "read_header_timeout": "5s",
    "write_timeout": "0s",
    "idle_timeout": "2m0s",
    "cors_allowed_origins": [],
    "cors_allow_credentials": False,
    "headers": {},
}


def apply(config: dict[str, Any], place: ClusterSettings) -> dict[str, Any]:
    """A copy of service.json in which every rule holds, with the REST API on its socket as the only API."""
    result = copy.deepcopy(config)
    for rule in rules(place):
        *parents, last = rule.key.split(".")
        section = result
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = copy.deepcopy(rule.value)
    result["api"] = {"restapi": {**_REST, "http_listen_multiaddress": f"/unix{place.rest_socket}"}}
    result["informer"].pop("pinqueue", None)
    return result
