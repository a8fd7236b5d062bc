"""service.json of a private ipfs-cluster."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from meshd.cluster.config import ClusterSettings, apply, rules

SECRET = "5e" * 32
PLACE = ClusterSettings(
    address="10.0.0.1",
    port=9096,
    rest_socket=Path("/run/meshd/private/cluster.sock"),
    gate_socket=Path("/run/meshd/private/gate.sock"),
    name="attic",
    mesh_id="m1",
    secret=SECRET,
    trusted=("12D3a", "12D3b"),
    peers=("/ip4/10.0.0.2/tcp/9096/p2p/12D3a",),
)
# What `ipfs-cluster-service init` of 1.1.6 writes, where it matters here.
FRESH: dict[str, Any] = {
    "cluster": {"peername": "host", "secret": "00", "listen_multiaddress": ["/ip4/0.0.0.0/tcp/9096"]},
    "consensus": {"crdt": {"cluster_name": "ipfs-cluster", "trusted_peers": ["*"]}},
    "api": {
        "ipfsproxy": {"listen_multiaddress": "/ip4/127.0.0.1/tcp/9095"},
        "pinsvcapi": {"http_listen_multiaddress": "/ip4/127.0.0.1/tcp/9097"},
        "restapi": {
            "http_listen_multiaddress": "/ip4/127.0.0.1/tcp/9094",
            "libp2p_listen_multiaddress": "/ip4/0.0.0.0/tcp/9096",
            "cors_allowed_origins": ["*"],
        },
    },
    "ipfs_connector": {"ipfshttp": {"node_multiaddress": "/ip4/127.0.0.1/tcp/5001"}},
    "informer": {"disk": {"metric_ttl": "30s"}, "pinqueue": {"metric_ttl": "30s"}, "tags": {"tags": {}}},
    "datastore": {"leveldb": {}},
}


def test_every_rule_holds_after_apply() -> None:
    made = apply(FRESH, PLACE)
    for rule in rules(PLACE):
        value: Any = made
        for part in rule.key.split("."):
            value = value[part]
        assert value == rule.value, rule.key
        assert rule.why


@pytest.mark.parametrize("part", ["ipfsproxy", "pinsvcapi"])
def test_there_is_no_api_but_rest(part: str) -> None:
    assert part in FRESH["api"]
    assert set(apply(FRESH, PLACE)["api"]) == {"restapi"}


def test_nothing_is_on_tcp_but_the_swarm_on_the_overlay() -> None:
    text = json.dumps(apply(FRESH, PLACE))
    assert text.count("/tcp/") == 2  # where it listens, and the one peer
    assert "0.0.0.0" not in text
    assert "127.0.0.1" not in text


def test_the_rest_api_is_a_socket_that_no_web_page_may_use() -> None:
    rest = apply(FRESH, PLACE)["api"]["restapi"]
    assert rest["http_listen_multiaddress"] == "/unix/run/meshd/private/cluster.sock"
    assert rest["cors_allowed_origins"] == []
    assert "libp2p_listen_multiaddress" not in rest


def test_the_cluster_never_talks_to_kubo_itself() -> None:
    connector = apply(FRESH, PLACE)["ipfs_connector"]["ipfshttp"]
    assert connector["node_multiaddress"] == "/unix/run/meshd/private/gate.sock"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cluster.secret", SECRET),
        ("cluster.listen_multiaddress", ["/ip4/10.0.0.1/tcp/9096"]),
        ("cluster.peer_addresses", ["/ip4/10.0.0.2/tcp/9096/p2p/12D3a"]),
        ("cluster.mdns_interval", "0s"),
        ("cluster.enable_relay_hop", False),
        ("cluster.disable_repinning", True),
        ("cluster.leave_on_shutdown", False),
        ("consensus.crdt.cluster_name", "meshd-m1"),
        ("consensus.crdt.rebroadcast_interval", "5s"),
        ("observations.metrics.enable_stats", False),
        ("observations.tracing.enable_tracing", False),
    ],
)
def test_what_must_not_stay_at_its_default_does_not_whatever_the_table_says(key: str, value: Any) -> None:
    found: Any = apply(FRESH, PLACE)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_only_members_are_trusted() -> None:
    assert apply(FRESH, PLACE)["consensus"]["crdt"]["trusted_peers"] == ["12D3a", "12D3b"]


def test_a_node_alone_trusts_nobody_rather_than_everybody() -> None:
    alone = ClusterSettings(**{f: getattr(PLACE, f) for f in PLACE.__slots__} | {"trusted": (), "peers": ()})
    assert apply(FRESH, alone)["consensus"]["crdt"]["trusted_peers"] == []


def test_apply_changes_nothing_that_it_is_given_and_keeps_what_no_rule_is_about() -> None:
    given = copy.deepcopy(FRESH)
    assert apply(given, PLACE)["datastore"] == {"leveldb": {}}
    assert given == FRESH


def test_apply_a_second_time_changes_nothing() -> None:
    once = apply(FRESH, PLACE)
    assert apply(once, PLACE) == once


def test_sections_that_are_missing_are_made() -> None:
    assert apply({"informer": {}}, PLACE)["cluster"]["peername"] == "attic"


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(PLACE)
    assert SECRET not in f"{PLACE}"
