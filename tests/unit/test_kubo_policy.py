"""The private-swarm rules: what they make of any config, and that a single deviation is found."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from meshd.config import parse_duration
from meshd.kubo import policy
from meshd.kubo.policy import KuboEndpoint, Rule, apply, audit, rules
from meshd.kubo.service import KuboProgram

PLACE = KuboEndpoint("10.0.0.1", 4001, Path("/run/meshd/private/kubo.sock"))

# What `ipfs init` of 0.43 writes where it matters here, and a bit of everything else.
FRESH: dict[str, Any] = {
    "Identity": {"PeerID": "12D3KooWexample", "PrivKey": "secret"},
    "Datastore": {"StorageMax": "10GB", "GCPeriod": "1h", "Spec": {"type": "mount"}},
    "Addresses": {
        "API": "/ip4/127.0.0.1/tcp/5001",
        "Gateway": "/ip4/127.0.0.1/tcp/8080",
        "Swarm": ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"],
    },
    "Bootstrap": ["auto"],
    "Routing": {},
    "Swarm": {"Transports": {"Network": {}}},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = sorted({rule.key.partition(".")[0] for rule in rules(PLACE)})
CONFIGS = st.dictionaries(st.sampled_from([*SECTIONS, "Identity", "Datastore"]), JSON)


def at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    other = copy.deepcopy(config)
    *parents, last = key.split(".")
    section = at(other, ".".join(parents)) if parents else other
    section[last] = value
    return other


def other_values(rule: Rule) -> list[Any]:
    """Values that a person or a new version could set instead."""
    match rule.value:
        case bool():
            return [not rule.value, None]
        case str() | int():
            return [f"{rule.value}x", None]
        case []:
            return [["/ip4/0.0.0.0/tcp/1"], "auto"]
        case list():
            return [[], [*rule.value, "/ip4/0.0.0.0/tcp/4001"]]
        case _:
            return [{"a": 1}]


def test_a_fresh_config_breaks_the_rules_and_apply_mends_all_of_them() -> None:
    broken = {violation.rule.key for violation in audit(FRESH, PLACE)}
    assert {"Addresses.API", "Addresses.Swarm", "Bootstrap", "Routing.Type"} <= broken
    assert audit(apply(FRESH, PLACE), PLACE) == []


@given(CONFIGS)
def test_apply_mends_whatever_is_there(config: dict[str, Any]) -> None:
    assert audit(apply(config, PLACE), PLACE) == []


@given(CONFIGS)
def test_apply_changes_nothing_that_it_is_given(config: dict[str, Any]) -> None:
    before = copy.deepcopy(config)
    apply(config, PLACE)
    assert config == before


@given(CONFIGS)
def test_apply_a_second_time_changes_nothing(config: dict[str, Any]) -> None:
    once = apply(config, PLACE)
    assert apply(once, PLACE) == once


@given(JSON, JSON)
def test_what_no_rule_is_about_stays_as_it_was(identity: Any, spec: Any) -> None:
    config = {"Identity": identity, "Datastore": {"Spec": spec}, "Mounts": {"IPFS": "/ipfs"}}
    made = apply(config, PLACE)
    assert made["Identity"] == identity
    assert made["Datastore"]["Spec"] == spec
    assert made["Mounts"] == {"IPFS": "/ipfs"}


def test_the_table_is_not_handed_out() -> None:
    apply({}, PLACE)["Bootstrap"].append("/ip4/8.8.8.8/tcp/4001")
    assert apply({}, PLACE)["Bootstrap"] == []


@pytest.mark.parametrize("rule", rules(PLACE), ids=lambda rule: rule.key)
def test_each_key_that_deviates_is_found_alone_and_said_with_its_reason(rule: Rule) -> None:
    good = apply(FRESH, PLACE)
    for value in other_values(rule):
        (violation,) = audit(changed(good, rule.key, value), PLACE)
        assert violation.rule.key == rule.key
        assert violation.found == value
        assert rule.why in str(violation)


@pytest.mark.parametrize(
    "rule", [r for r in rules(PLACE) if r.value or isinstance(r.value, bool)], ids=lambda r: r.key
)
def test_a_key_that_is_missing_is_found(rule: Rule) -> None:
    made = apply(FRESH, PLACE)
    *parents, last = rule.key.split(".")
    del (at(made, ".".join(parents)) if parents else made)[last]
    assert [violation.rule.key for violation in audit(made, PLACE)] == [rule.key]


def test_an_empty_list_that_kubo_shows_as_null_is_right() -> None:
    made = apply(FRESH, PLACE) | {"Bootstrap": None}
    assert audit(made, PLACE) == []


def test_nothing_listens_but_the_swarm_on_the_overlay() -> None:
    addresses = apply(FRESH, PLACE)["Addresses"]
    assert addresses["Swarm"] == ["/ip4/10.0.0.1/tcp/4001"]
    assert addresses["API"] == "/unix/run/meshd/private/kubo.sock"
    assert addresses["Gateway"] == []


def test_the_overlay_may_have_version_6_of_the_protocol() -> None:
    place = KuboEndpoint("fd00::1", 4001, PLACE.rpc_socket)
    assert apply({}, place)["Addresses"]["Swarm"] == ["/ip6/fd00::1/tcp/4001"]


def test_an_address_that_has_changed_is_found() -> None:
    elsewhere = KuboEndpoint("10.0.0.2", 4001, PLACE.rpc_socket)
    assert [v.rule.key for v in audit(apply(FRESH, PLACE), elsewhere)] == ["Addresses.Swarm"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Addresses.Gateway", []),
        ("AutoConf.Enabled", False),
        ("AutoNAT.ServiceMode", "disabled"),
        ("AutoTLS.Enabled", False),
        ("Bootstrap", []),
        ("DNS.Resolvers", {}),
        ("Discovery.MDNS.Enabled", False),
        ("HTTPRetrieval.Enabled", False),
        ("Ipns.DelegatedPublishers", []),
        ("Provide.Enabled", False),
        ("Routing.DelegatedRouters", []),
        ("Routing.Type", "none"),
        ("Swarm.AddrFilters", []),
        ("Addresses.NoAnnounce", []),
        ("Swarm.DisableNatPortMap", True),
        ("Swarm.EnableHolePunching", False),
        ("Swarm.RelayClient.Enabled", False),
        ("Swarm.RelayService.Enabled", False),
        ("Swarm.Transports.Network.QUIC", False),
        ("Swarm.Transports.Network.WebRTCDirect", False),
        ("Swarm.Transports.Network.WebTransport", False),
        ("Swarm.Transports.Network.Websocket", False),
        ("Version.SwarmCheckEnabled", False),
        ("API.Authorizations", {}),
        ("Experimental.FilestoreEnabled", False),
        ("Experimental.Libp2pStreamMounting", False),
        ("Experimental.P2pHttpProxy", False),
        ("Experimental.UrlstoreEnabled", False),
        ("Gateway.NoFetch", True),
        ("Pubsub.Enabled", False),
        ("Swarm.Transports.Network.Relay", False),
    ],
)
def test_what_would_reach_out_of_the_mesh_is_off_whatever_the_table_says(key: str, value: Any) -> None:
    assert at(apply(FRESH, PLACE), key) == value


def test_an_orderly_end_is_shorter_than_the_patience_of_the_supervisor() -> None:
    timeout = at(apply(FRESH, PLACE), "Internal.ShutdownTimeout")
    assert parse_duration(timeout) < KuboProgram.stop_grace


def test_every_rule_has_a_reason_and_a_value_that_json_can_say() -> None:
    for rule in rules(PLACE):
        assert rule.why
        assert json.loads(json.dumps(rule.value)) == rule.value
    keys = [rule.key for rule in rules(PLACE)]
    assert len(keys) == len(set(keys))


def test_kubo_refuses_to_run_without_a_swarm_key_and_reports_nothing() -> None:
    assert policy.ENVIRONMENT == {"LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off"}
