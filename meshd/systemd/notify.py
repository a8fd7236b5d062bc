"""The notification protocol, sd_notify(3): datagrams of `NAME=value` lines to the socket that systemd names.

systemd-python sends them where it is installed. The protocol is stable and public, so a plain socket does without it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

Send = Callable[[str], None]


class Notifier:
    """Notifies the service manager. Does nothing without one, or where it cannot be reached: that ends no node."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """environment: this process's own, as systemd-python reads NOTIFY_SOCKET from there by itself."""
        address = environment.get("NOTIFY_SOCKET", "")
        self.present = bool(address)
        self.watchdog_s = _watchdog(environment) if address else 0.0
        self._send: Send = _sender(address) if address else lambda _: None

    def tell(self, **fields: str | int) -> None:
        """Send one message: tell(READY=1, STATUS="ready"). A newline ends a field, so values become one line."""
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        self._send(text)


def _watchdog(environment: Mapping[str, str]) -> float:
    """The watchdog's period in seconds; 0: there is none."""
    raw = environment.get("WATCHDOG_USEC", "")
    return int(raw) / 1e6 if raw.isdigit() else 0.0


def _sender(address: str) -> Send:
    try:
        from systemd import daemon
    except ImportError:
        return _datagrams(address)

    def send(text: str) -> None:
        try:
            daemon.notify(text)
        except OSError:
            pass  # as below

    return send


def _datagrams(address: str) -> Send:
    target = f"\0{address[1:]}" if address.startswith("@") else address  # @: the abstract namespace

    def send(text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto(text.encode(), target)
        except OSError:
            pass  # the manager is gone or its queue is full; the watchdog's next message tries again

    return send
