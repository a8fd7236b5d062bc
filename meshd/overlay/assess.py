"""Assesses ZeroTier's reports: the address to serve on, or what is wrong and what to type. Pure.

The service's OK is not enough for an address: it does not mean that the interface has it (ZeroTierOne#809).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from meshd.model import Condition, OverlayState, Severity
from meshd.overlay.addresses import is_private
from meshd.overlay.static import SEVERAL
from meshd.overlay.zerotier import Network, ZeroTierError

REQUESTING_TOO_LONG_S = 20.0  # a reachable controller answers within 2 to 6 s (measured)

FIRST = "join the mesh on one: meshctl join ID; or begin a mesh on it: meshctl init --network ID (ID: its 16 hex digits)"
_OTHER = "for another private network see [overlay] in /etc/meshd/meshd.toml"


@dataclass(frozen=True, slots=True)
class Seen:
    """One poll. networks: the joined ones. error: in place of all else, where the service cannot be used.

    wanted: id of the mesh's network, "" where none was chosen. controller: name of the member that is its controller,
    "" where that is no member. node: this machine's ZeroTier address. interfaces: name -> addresses, from the kernel.
    requesting_s: for how many seconds the wanted network has been requesting its configuration.
    """

    wanted: str
    controller: str = ""
    networks: tuple[Network, ...] = ()
    node: str = ""
    online: bool = True
    interfaces: Mapping[str, Sequence[str]] | None = None
    requesting_s: float = 0.0
    error: ZeroTierError | None = None


def assess(seen: Seen, before: OverlayState) -> OverlayState:
    """This machine's state on the private network now.

    before: the last state. Its address is kept while it is valid, so that a second address does not move the node.
    """
    if seen.error is not None:
        return _unasked(seen, before, seen.error)
    network = _chosen(seen)
    if isinstance(network, OverlayState):
        return network
    found = OverlayState(
        interface=network.device,
        why=f"ZeroTier network {network.id}{f' ({network.name})' if network.name else ''}",
        network=network.id,
        node=seen.node,
        network_status=network.status,
    )
    if network.status in _REFUSALS:
        return found.having(problem=_REFUSALS[network.status](network, seen))
    address = _address(network, seen.interfaces or {}, before.address)
    # Also while it requests anew after a restart of the service, which remembers its last configuration.
    if address is not None:
        return found.having(address=address)
    return found.having(problem=_no_address(network, seen))


def first_look(seen: Seen, nothing: OverlayState) -> OverlayState:
    """The state of a machine with ZeroTier, without a mesh and without a section [overlay].

    nothing: the state without ZeroTier, with a problem.
    """
    problem = nothing.problem
    assert problem is not None  # noqa: S101 - the caller has seen one
    several = problem.cause.startswith(SEVERAL)
    if seen.error is not None:
        if several or seen.error.kind == "zerotier-not-installed":
            return nothing
        error, cause = seen.error, f"{seen.error.detail}; and there is no WireGuard or Tailscale here"
        told = Condition(error.kind, Severity.ERROR, error.title, cause, f"{error.hint}; {_OTHER}")
        return nothing.having(problem=told)
    nothing = replace(nothing, node=seen.node)
    if several:
        return nothing.having(problem=replace(problem, hint=f"{problem.hint}; or on ZeroTier {FIRST}"))
    found = assess(seen, nothing)
    return found if found.problem is None else found.having(problem=_or_another(found.problem))


def _or_another(problem: Condition) -> Condition:
    return replace(problem, hint=f"{problem.hint}; {_OTHER}") if problem.code == "zerotier-none" else problem


def _unasked(seen: Seen, before: OverlayState, error: ZeroTierError) -> OverlayState:
    """The state while the service does not answer. The address stays valid while its interface has it."""
    still = before.address is not None and before.address in (seen.interfaces or {}).get(before.interface, ())
    severity = Severity.WARNING if still else Severity.ERROR
    problem = Condition(error.kind, severity, error.title, error.detail, error.hint)
    return OverlayState(
        address=before.address if still else None,
        interface=before.interface if still else "",
        why=before.why if still else "",
        network=seen.wanted,
        node=before.node,
        problem=problem,
    )


def _chosen(seen: Seen) -> Network | OverlayState:
    """The network of the mesh, or the one that a mesh would be on."""
    if seen.wanted:
        for network in seen.networks:
            if network.id == seen.wanted:
                return network
        cause = f"ZeroTier on this machine has left it, or never joined it ({_joined(seen.networks)})"
        hint = f"sudo zerotier-cli join {seen.wanted}; or for good: auto_join = true in [[overlay.zerotier.networks]]"
        problem = Condition(
            "zerotier-left", Severity.ERROR, f"this machine is not on the network {seen.wanted}", cause, hint
        )
        return OverlayState(network=seen.wanted, node=seen.node, problem=problem)
    if len(seen.networks) == 1:
        return seen.networks[0]
    if seen.networks:
        ids = ", ".join(f"{n.id}{f' ({n.name})' if n.name else ''}" for n in seen.networks)
        problem = Condition(
            "zerotier-several",
            Severity.ERROR,
            "meshd does not know which ZeroTier network to use",
            f"this machine is on {ids}",
            FIRST,
        )
    else:
        problem = Condition(
            "zerotier-none",
            Severity.ERROR,
            "this machine is on no ZeroTier network",
            "ZeroTier One runs, and has joined none",
            FIRST,
        )
    return OverlayState(node=seen.node, problem=problem)


def _joined(networks: Sequence[Network]) -> str:
    return "it is on " + ", ".join(n.id for n in networks) if networks else "it is on none"


def _address(network: Network, interfaces: Mapping[str, Sequence[str]], before: str | None) -> str | None:
    """The address used before if it is still assigned, else an IPv4 one, else an IPv6 one."""
    assigned = [a for a in map(_bare, network.addresses) if a and is_private(a)]
    there = [a for a in assigned if a in interfaces.get(network.device, ())]
    if before in there:
        return before
    return min(there, key=lambda a: (":" in a, there.index(a)), default=None)


def _bare(cidr: str) -> str:
    try:
        return str(ipaddress.ip_interface(cidr).ip)
    except ValueError:
        return ""


def _no_address(network: Network, seen: Seen) -> Condition:
    name = _called(network)
    if network.status == "OK" and not network.addresses:
        return Condition(
            "zerotier-no-address",
            Severity.ERROR,
            f"{name} gives this machine no address",
            "it is authorized there, and neither IPv4 nor IPv6 auto-assign is on, or the pool is used up",
            "in the network's admin page turn on IPv4 auto-assign, or give this member an address (its ZeroTier address"
            f" is {seen.node})",
        )
    if network.status == "OK" and not any(is_private(a) for a in map(_bare, network.addresses) if a):
        return Condition(
            "zerotier-no-address",
            Severity.ERROR,
            f"{name} gives this machine no private address",
            f"it has {', '.join(network.addresses)}, which is not private",
            "in the network's admin page choose a private range (10.x.x.x, 172.16-31.x.x, 192.168.x.x)",
        )
    if network.status == "OK":
        return Condition(
            "overlay-down",
            Severity.ERROR,
            f"the address of {name} is not on {network.device or 'its interface'}",
            f"ZeroTier says {', '.join(network.addresses)}; the kernel does not have it there",
            f"ip addr show {network.device}; if it stays so: sudo systemctl restart zerotier-one",
        )
    late = seen.requesting_s > REQUESTING_TOO_LONG_S
    cause = "ZeroTier asks the network's controller and waits for its answer" + (
        f", for {seen.requesting_s:.0f} s now" if late else ""
    )
    hint = "wait a moment"
    if late and not seen.online:
        cause, hint = (
            cause + "; it reaches none of ZeroTier's servers",
            "see that UDP may leave this machine: zerotier-cli info",
        )
    elif late:
        hint = f"see that the id is right, and that the network's controller is on: sudo zerotier-cli get {network.id} status"
    severity = Severity.ERROR if late else Severity.WARNING
    return Condition("zerotier-waiting", severity, f"{name} is not there yet", cause, hint)


def _denied(network: Network, seen: Seen) -> Condition:
    hint = _who_lets_in(network, seen)
    return Condition(
        "zerotier-denied",
        Severity.ERROR,
        f"this machine is not authorized on {_called(network)}",
        f"its ZeroTier address is {seen.node}",
        hint,
    )


def _who_lets_in(network: Network, seen: Seen) -> str:
    """Who can authorize this node, for a hint. A network's id begins with the address of its controller."""
    node, own = seen.node, bool(seen.node) and network.id.startswith(seen.node)
    if own and seen.controller:
        return f"this machine is the network's controller; type here: meshctl approve {node}"
    if own:
        return f"this machine is the network's controller, and lets itself in: meshctl init --network {network.id}"
    if seen.controller:
        return f"on {seen.controller}, the network's controller, type: meshctl approve {node}"
    return f"on a member type: meshctl approve {node}; or authorize {node} in the network's admin page"


def _not_found(network: Network, seen: Seen) -> Condition:
    return Condition(
        "zerotier-not-found",
        Severity.ERROR,
        f"there is no ZeroTier network {network.id}",
        "its controller does not know it: the id is wrong, or the network was deleted",
        f"compare the id with the one on a member: meshctl status; and leave this one: zerotier-cli leave {network.id}",
    )


def _port_error(network: Network, seen: Seen) -> Condition:
    return Condition(
        "zerotier-port-error",
        Severity.ERROR,
        f"ZeroTier cannot make the interface of {_called(network)}",
        "the system gave it no virtual network device (no /dev/net/tun, or not allowed in this container)",
        "sudo modprobe tun, then: sudo systemctl restart zerotier-one; and see: journalctl -u zerotier-one",
    )


def _too_old(network: Network, seen: Seen) -> Condition:
    return Condition(
        "zerotier-too-old",
        Severity.ERROR,
        f"ZeroTier One on this machine is too old for {_called(network)}",
        "the network's controller wants a newer one",
        "install the present version as https://www.zerotier.com/download says",
    )


def _login(network: Network, seen: Seen) -> Condition:
    where = network.login_url or "the address that zerotier-cli listnetworks shows"
    return Condition(
        "zerotier-login",
        Severity.ERROR,
        f"{_called(network)} wants a person to log in",
        "the network uses single sign-on",
        f"open in a browser: {where}",
    )


_REFUSALS = {
    "ACCESS_DENIED": _denied,
    "NOT_FOUND": _not_found,
    "PORT_ERROR": _port_error,
    "CLIENT_TOO_OLD": _too_old,
    "AUTHENTICATION_REQUIRED": _login,
}


def _called(network: Network) -> str:
    return f"the ZeroTier network {network.name or network.id}"
