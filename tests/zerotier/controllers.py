"""The controllers' state of networks and members, in the schemas of the real one's API (1.14.1)."""

from __future__ import annotations

import ipaddress
import secrets
import threading
import time
from typing import Any

Document = dict[str, Any]


class RefusedError(Exception):
    """A controller's refusal. status: of the member's network; code: the HTTP status of its API."""

    def __init__(self, status: str, code: int = 404) -> None:
        super().__init__(status)
        self.status = status
        self.code = code


def rfc4193(network: str, member: str) -> str:
    """The address of a member by its ids: fd, the network, 9993, the node."""
    return str(ipaddress.IPv6Address(bytes.fromhex(f"fd{network}9993{member}")))


class Controllers:
    """All controllers. A network belongs to the one whose address its id begins with."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.serial = 0
        self.hosted: set[str] = set()
        """Controllers that are no service here: ZeroTier Central's."""
        self._networks: dict[str, Document] = {}
        self._members: dict[str, dict[str, Document]] = {}
        self._changes: dict[tuple[str, str], int] = {}  # network and member, "" for all: the serial then

    # -- networks ---------------------------------------------------------------------------------------------------

    def networks(self, controller: str) -> list[str]:
        with self.lock:
            return sorted(n for n in self._networks if n.startswith(controller))

    def network(self, network: str) -> Document:
        with self.lock:
            return dict(self._known(network))

    def make_network(self, controller: str, changes: Document) -> Document:
        """Make a network with a random tail, as the real one does."""
        return self.change_network(f"{controller}{secrets.token_hex(3)}", changes)

    def change_network(self, network: str, changes: Document) -> Document:
        """Change a network; make it where it does not exist."""
        with self.lock:
            kept = self._networks.setdefault(network, _new_network(network))
            self._members.setdefault(network, {})
            for name, value in changes.items():
                if name in ("v4AssignMode", "v6AssignMode"):
                    kept[name] = {**kept[name], **value}
                elif name in ("name", "private", "routes", "ipAssignmentPools", "enableBroadcast"):
                    kept[name] = value
            kept["revision"] += 1
            self.changed(network, "")
            return dict(kept)

    def remove_network(self, network: str) -> Document:
        with self.lock:
            self._known(network)
            self._members.pop(network)
            return self._networks.pop(network)

    # -- members ----------------------------------------------------------------------------------------------------

    def members(self, network: str) -> list[Document]:
        with self.lock:
            self._known(network)
            return [dict(one) for one in self._members[network].values()]

    def member(self, network: str, member: str) -> Document:
        with self.lock:
            self._known(network)
            if member not in self._members[network]:
                raise RefusedError("ACCESS_DENIED")
            return dict(self._members[network][member])

    def change_member(self, network: str, member: str, changes: Document) -> Document:
        """Change a member, even one that has not asked yet: it is authorized when it does."""
        with self.lock:
            self._known(network)
            kept = self._members[network].setdefault(member, _new_member(network, member))
            if "authorized" in changes and bool(changes["authorized"]) != kept["authorized"]:
                kept["authorized"] = bool(changes["authorized"])
                kept["lastAuthorizedTime" if kept["authorized"] else "lastDeauthorizedTime"] = _now_ms()
                if kept["authorized"]:
                    kept["lastAuthorizedCredentialType"] = "api"
            for name in ("ipAssignments", "noAutoAssignIps", "activeBridge", "name"):
                if name in changes:
                    kept[name] = changes[name]
            kept["revision"] += 1
            self.changed(network, member)
            return dict(kept)

    def remove_member(self, network: str, member: str) -> Document:
        with self.lock:
            gone = self.member(network, member)
            del self._members[network][member]
            return gone

    # -- what members are told --------------------------------------------------------------------------------------

    def asked(self, network: str, member: str, identity: str) -> None:
        """Record that a member has requested its configuration: it is listed from then on, authorized or not."""
        if network in self._networks:
            kept = self._members[network].setdefault(member, _new_member(network, member, revision=1))
            kept["identity"] = identity

    def has_asked(self, network: str, member: str) -> bool:
        return "identity" in self._members.get(network, {}).get(member, {})

    def config(self, network: str, member: str) -> Document:
        """A member's configuration: name, addresses (CIDRs), routes, revision, private. Raises RefusedError."""
        found = self._networks.get(network)
        if found is None:
            raise RefusedError("NOT_FOUND")
        kept = self._members[network][member]
        if not kept["authorized"] and found["private"]:
            raise RefusedError("ACCESS_DENIED")
        kept.update(
            vMajor=1, vMinor=14, vProto=12, vRev=1
        )  # the real one notes them with the first that it sends
        if found["v4AssignMode"].get("zt") and not kept["ipAssignments"] and not kept["noAutoAssignIps"]:
            kept["ipAssignments"] = self._free(network)
        v6 = [f"{rfc4193(network, member)}/88"] if found["v6AssignMode"].get("rfc4193") else []
        return {
            "name": found["name"],
            "addresses": v6 + [_with_prefix(address, found["routes"]) for address in kept["ipAssignments"]],
            "routes": found["routes"],
            "revision": found["revision"],
            "private": found["private"],
            "broadcast": found["enableBroadcast"],
        }

    def may_talk(self, member: str) -> bool:
        """Whether any network authorizes it."""
        return any(members.get(member, {}).get("authorized") for members in self._members.values())

    def acquainted(self, one: str, other: str) -> bool:
        """Whether the two talk: as members of a network, or as member and controller."""
        for network, members in self._members.items():
            inside = {
                address for address, kept in members.items() if kept["authorized"] or "identity" in kept
            }
            if {one, other} <= inside | {network[:10]}:
                return True
        return False

    def changed(self, network: str, member: str) -> None:
        self.serial += 1
        self._changes[network, member] = self.serial

    def changed_since(self, member: str, since: int) -> list[str]:
        return sorted({n for (n, m), at in self._changes.items() if at > since and m in ("", member)})

    def _known(self, network: str) -> Document:
        if network not in self._networks:
            raise RefusedError("NOT_FOUND")
        return self._networks[network]

    def _free(self, network: str) -> list[str]:
        taken = {a for kept in self._members[network].values() for a in kept["ipAssignments"]}
        for pool in self._networks[network]["ipAssignmentPools"]:
            first, last = (int(ipaddress.ip_address(pool[k])) for k in ("ipRangeStart", "ipRangeEnd"))
            for number in range(first, last + 1):
                if (address := str(ipaddress.ip_address(number))) not in taken:
                    return [address]
        return []


def _with_prefix(address: str, routes: list[Document]) -> str:
    """An address with the prefix length of its managed route."""
    for route in routes:
        net = ipaddress.ip_network(route["target"])
        if route.get("via") is None and ipaddress.ip_address(address) in net:
            return f"{address}/{net.prefixlen}"
    return f"{address}/{ipaddress.ip_address(address).max_prefixlen}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_network(network: str) -> Document:
    return {
        "authTokens": [None],
        "authorizationEndpoint": "",
        "capabilities": [],
        "clientId": "",
        "creationTime": _now_ms(),
        "dns": [],
        "enableBroadcast": True,
        "id": network,
        "ipAssignmentPools": [],
        "mtu": 2800,
        "multicastLimit": 32,
        "name": "",
        "nwid": network,
        "objtype": "network",
        "private": True,
        "remoteTraceLevel": 0,
        "remoteTraceTarget": None,
        "revision": 0,
        "routes": [],
        "rules": [{"not": False, "or": False, "type": "ACTION_ACCEPT"}],
        "rulesSource": "",
        "ssoEnabled": False,
        "tags": [],
        "v4AssignMode": {"zt": False},
        "v6AssignMode": {"6plane": False, "rfc4193": False, "zt": False},
    }


def _new_member(network: str, member: str, revision: int = 0) -> Document:
    return {
        "activeBridge": False,
        "address": member,
        "authenticationExpiryTime": 0,
        "authorized": False,
        "capabilities": [],
        "creationTime": _now_ms(),
        "id": member,
        "ipAssignments": [],
        "lastAuthorizedCredential": None,
        "lastAuthorizedCredentialType": None,
        "lastAuthorizedTime": 0,
        "lastDeauthorizedTime": 0,
        "noAutoAssignIps": False,
        "nwid": network,
        "objtype": "member",
        "remoteTraceLevel": 0,
        "remoteTraceTarget": None,
        "revision": revision,
        "ssoExempt": False,
        "tags": [],
        "vMajor": -1,
        "vMinor": -1,
        "vProto": -1,
        "vRev": -1,
    }
