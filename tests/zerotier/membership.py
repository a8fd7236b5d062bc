"""One joined network at one fake service: what it asks of its controller and when, and what it says of it.

Times as measured on 1.14.1. The one that surprises: a controller sends a new configuration at once and a refusal never,
so a member that was let in hears that it is out only when it asks the next time.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from dataclasses import dataclass, field, fields
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """Seconds. The defaults are the real ones; `quick()` is for tests that are about something else."""

    look: float = 0.02
    """How often a service looks for what was sent to it."""
    first_request: float = 0.1
    """From joining, or from a start of the service, to the first answer of the controller."""
    retry: float = 5.0
    """Without a configuration, or refused, it asks again."""
    refresh: float = 60.0
    """With one it asks again. It looks each `retry` whether that is due."""
    load: float = 0.06
    """After a start the service answers that long before it knows its networks."""
    online: float = 5.0
    """After a start it says so long that it is not online."""
    interface_cache: float = 1.0
    """So long it takes for true what it last saw on its interface: see tests/zerotier/devices.py."""

    @classmethod
    def quick(cls) -> Timing:
        return cls(retry=0.2, refresh=0.6, load=0.02, online=0.1, interface_cache=0.0)

    def as_json(self) -> str:
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)})


@dataclass
class Membership:
    """member, network: ids. device: its interface's name. config: as Controllers.config gives it, None for none yet."""

    member: str
    network: str
    device: str
    config: Document | None = None
    failure: str | None = None
    login_url: str = ""
    settings: dict[str, bool] = field(
        default_factory=lambda: {
            "allowDNS": False,
            "allowDefault": False,
            "allowGlobal": False,
            "allowManaged": True,
        }
    )
    got_config_at: float = float("-inf")
    next_request_at: float = 0.0

    def due(self, now: float, timing: Timing) -> bool:
        """Whether it is time to ask the controller. Asking is then put off by itself."""
        if now < self.next_request_at:
            return False
        self.next_request_at = now + timing.retry
        return self.config is None or now - self.got_config_at >= timing.refresh

    def answered(self, answer: Document, now: float) -> None:
        """What the controller said: {"config"}, {"failure", "url"}, or {} where it did not."""
        if "config" in answer:
            self.config, self.failure, self.login_url = answer["config"], None, ""
            self.got_config_at = now
        elif "failure" in answer:  # the last configuration is kept, addresses and all
            self.failure, self.login_url = answer["failure"], answer["url"]

    @property
    def addresses(self) -> list[str]:
        """CIDRs that belong on the interface: whatever the last configuration said, also when refused since."""
        return list(self.config["addresses"]) if self.config and self.settings["allowManaged"] else []

    @property
    def status(self) -> str:
        if self.failure is not None:
            return self.failure
        return "OK" if self.config else "REQUESTING_CONFIGURATION"

    def as_json(self) -> Document:
        """As GET /network/{id} shows it."""
        config = self.config or {}
        login = {"authenticationURL": self.login_url, "authenticationExpiryTime": 0, "ssoEnabled": True}
        hardware = mac(self.network, self.member)
        groups = [(0, "01:00:5e:00:00:01"), (0, "33:33:00:00:00:01"), (0, f"33:33:ff{hardware[8:]}")]
        # Who asks for a v4 address is heard by those who have it.
        v4 = [ip for a in config.get("addresses", []) if (ip := ipaddress.ip_interface(a).ip).version == 4]
        groups += [(int(ip), "ff:ff:ff:ff:ff:ff") for ip in v4]
        if self.status == "REQUESTING_CONFIGURATION":
            groups = []
        return {
            **self.settings,
            "assignedAddresses": config.get("addresses", []),
            "bridge": False,
            "broadcastEnabled": config.get("broadcast", False),
            "dhcp": False,
            "dns": {"domain": "", "servers": []},
            "id": self.network,
            "mac": hardware,
            "mtu": 2800,
            "multicastSubscriptions": [{"adi": adi, "mac": group} for adi, group in groups],
            "name": config.get("name", ""),
            "netconfRevision": config.get("revision", 0),
            "nwid": self.network,
            "portDeviceName": self.device,
            "portError": -1 if self.failure == "PORT_ERROR" else 0,
            "routes": [
                {"flags": 0, "metric": 0, "target": route["target"], "via": route.get("via")}
                for route in config.get("routes", [])
            ],
            "status": self.status,
            "type": "PRIVATE" if config.get("private", True) else "PUBLIC",
            **(login if self.failure == "AUTHENTICATION_REQUIRED" else {}),
        }


def device_name(network: str) -> str:
    """As Linux has it: by the network alone, so it is the same on each node and after each start."""
    number = int(network, 16)
    folded = (number ^ (number >> 24)) & 0xFFFFFFFFFF
    return "zt" + base64.b32encode(folded.to_bytes(5, "big")).decode().lower()


def mac(network: str, member: str) -> str:
    """By the ids alone."""
    net, node = bytes.fromhex(network), bytes.fromhex(member)
    first = net[7] & 0xFE | 0x02
    mixed = [byte ^ net[6 - i] for i, byte in enumerate(node)]
    return ":".join(f"{byte:02x}" for byte in [0x32 if first == 0x52 else first, *mixed])
