"""The address on a private network that something else maintains: configured, of an interface, or found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from meshd.config import Overlay
from meshd.model import Condition, OverlayState, Severity
from meshd.overlay.addresses import addresses, is_private, on_this_machine

SEVERAL = "this machine has several private overlays"
_OVERLAY_INTERFACES = re.compile(r"(zt|tailscale|wg)[a-z0-9]*")


def find(table: Mapping[str, Sequence[str]]) -> OverlayState:
    """The private network among the interfaces, if it is unambiguous. table: interface name -> addresses. Pure."""
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
    what = SEVERAL if candidates else "this machine has no private overlay (zt*, tailscale*, wg*)"
    names = f": {', '.join(f'{n} ({f[0]})' for n, f in sorted(candidates.items()))}" if candidates else ""
    return OverlayState(
        problem=Condition(
            "overlay-unknown",
            Severity.ERROR,
            "meshd does not know which private network to use",
            f"{what}{names}",
            'say which one in /etc/meshd/meshd.toml: [overlay] kind = "static" and interface = "wg0" (or address ='
            ' "10.1.2.3"), then: sudo systemctl restart meshd',
        )
    )


def of_interface(name: str, table: Mapping[str, Sequence[str]]) -> OverlayState:
    """The private address of one interface. table: see `find`. Pure."""
    if name not in table:
        cause = "there is no such interface"
    else:
        private = [a for a in table[name] if is_private(a)]
        if private:
            return OverlayState(private[0], name, f"the configuration names {name}")
        shown = ", ".join(table[name]) or "none"
        cause = f"it has no private address (it has {shown})"
    return OverlayState(
        interface=name,
        problem=_down(
            f"interface {name} cannot be used",
            cause,
            f"bring it up (ip link set {name} up, wg-quick up {name}); see: ip addr show {name}",
        ),
    )


def look(config: Overlay) -> OverlayState:
    """Poll once. The state has an address only if it can be bound at this moment."""
    if config.kind == "auto":
        state = find(addresses())
    elif config.interface:
        state = of_interface(config.interface, addresses())
    else:
        state = OverlayState(config.address, why="the configuration names it")
    if state.address and not on_this_machine(state.address):
        return state.having(problem=not_on_this_machine(state.address))
    return state


def not_on_this_machine(address: str) -> Condition:
    """The condition for an address, found or configured, that cannot be bound."""
    return _down(
        f"address {address} is not on this machine",
        "the private network is down, or the address has changed",
        "bring the network up (ip addr shows what is there); meshd goes on by itself",
    )


def _down(title: str, cause: str, hint: str) -> Condition:
    return Condition("overlay-down", Severity.ERROR, title, cause, hint)
