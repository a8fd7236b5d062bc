"""Who this machine is on a private network that something else keeps up: a given address, an interface, or found."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence

import psutil

from meshd.config import Overlay
from meshd.model import Condition, OverlayState, Severity

_OVERLAY_INTERFACES = re.compile(r"(zt|tailscale|wg)[a-z0-9]*")


def is_private(address: str) -> bool:
    """Whether content may be served on it: loopback, RFC 1918, RFC 4193, and Tailscale's 100.64.0.0/10. Pure."""
    ip = ipaddress.ip_address(address)
    if ip.is_loopback:
        return True
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved:
        return False
    return not ip.is_global or (ip.version == 4 and ip in ipaddress.ip_network("100.64.0.0/10"))


def on_this_machine(address: str) -> bool:
    """Whether it can be bound. 127.0.0.2 is on no interface list and yet is there, so binding is the only test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as exc:
            if exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
                return False
            raise
    return True


def addresses() -> dict[str, list[str]]:
    """Interface name -> its addresses, IPv4 first, without zone ids."""
    table: dict[str, list[str]] = {}
    for name, entries in psutil.net_if_addrs().items():
        found = [
            e.address.partition("%")[0] for e in entries if e.family in (socket.AF_INET, socket.AF_INET6)
        ]
        table[name] = sorted(found, key=lambda a: ":" in a)
    return table


def find(table: Mapping[str, Sequence[str]]) -> OverlayState:
    """The private overlay among the interfaces, if it is plain which one is meant. Pure."""
    candidates = {
        name: [a for a in found if is_private(a)]
        for name, found in table.items()
        if _OVERLAY_INTERFACES.fullmatch(name)
    }
    candidates = {name: found for name, found in candidates.items() if found}
    if len(candidates) == 1:
        name, found = next(iter(candidates.items()))
        why = f"{name} is the only private overlay on this machine"
        return OverlayState(found[0], name, why)
    what = "several private overlays" if candidates else "no private overlay (zt*, tailscale*, wg*)"
    names = f": {', '.join(f'{n} ({f[0]})' for n, f in sorted(candidates.items()))}" if candidates else ""
    return OverlayState(
        problem=Condition(
            "overlay-unknown",
            Severity.ERROR,
            "meshd does not know which private network to use",
            f"this machine has {what}{names}",
            'say which one in /etc/meshd/meshd.toml: [overlay] kind = "static" and interface = "wg0" (or address ='
            ' "10.1.2.3"), then: systemctl restart meshd',
        )
    )


def of_interface(name: str, table: Mapping[str, Sequence[str]]) -> OverlayState:
    """The private address of one interface. Pure."""
    if name not in table:
        cause = "there is no such interface"
    else:
        private = [a for a in table[name] if is_private(a)]
        if private:
            return OverlayState(private[0], name, f"the configuration names {name}")
        shown = ", ".join(table[name]) or "none"
        cause = f"it has no private address (it has {shown})"
    return OverlayState(
        interface=name, problem=_down(f"interface {name} cannot be used", cause, f"ip addr show {name}")
    )


def look(config: Overlay) -> OverlayState:
    """What is true now. An address is given only when it can be bound this moment."""
    if config.kind == "auto":
        state = find(addresses())
    elif config.interface:
        state = of_interface(config.interface, addresses())
    else:
        state = OverlayState(config.address, why="the configuration names it")
    if state.address and not on_this_machine(state.address):
        problem = _down(
            f"address {state.address} is not on this machine",
            "the private network is down, or the address has changed",
            "bring the network up (ip addr shows what is there); meshd goes on by itself",
        )
        return OverlayState(interface=state.interface, why=state.why, problem=problem)
    return state


def _down(title: str, cause: str, hint: str) -> Condition:
    return Condition("overlay-down", Severity.ERROR, title, cause, hint)
