"""The addresses of this machine, and which of them are private."""

from __future__ import annotations

import errno
import ipaddress
import socket

import psutil


def is_private(address: str) -> bool:
    """Whether an address is private: loopback, RFC 1918, RFC 4193, Tailscale's 100.64.0.0/10. Pure.

    Content may be served on such addresses only.
    """
    ip = ipaddress.ip_address(address)
    if ip.is_loopback:
        return True
    if ip.is_unspecified or ip.is_multicast or ip.is_link_local or ip.is_reserved:
        return False
    return not ip.is_global or (ip.version == 4 and ip in ipaddress.ip_network("100.64.0.0/10"))


def on_this_machine(address: str) -> bool:
    """Whether an address can be bound: the only test, as 127.0.0.2 is on no interface list and yet is there."""
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
