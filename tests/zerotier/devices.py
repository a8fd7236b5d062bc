"""The interfaces of one fake service, in whose network namespace this runs. Needs root."""

from __future__ import annotations

import json
import subprocess
import time


class Devices:
    """The first joined network gets the namespace's own interface, the others one that leads nowhere.

    It renames the interface and brings it up when the network is joined, and back when it is left, so that it seems to
    come and go as the real one's does.

    Like the real one it reads the interface at most once in `cache` seconds: an address that is removed that soon
    after it was added stays for good, and one that is added that soon after it was removed never comes.
    """

    def __init__(self, given: str, cache: float) -> None:
        self._given = given
        self._cache = cache
        self._made: dict[str, str] = {}  # device, as whom it was before ("" for one made here)
        self._managed: dict[str, list[str]] = {}
        self._seen: dict[str, tuple[float, set[str]]] = {}

    def add(self, device: str, mac: str) -> None:
        if device in self._made:
            return
        before = "" if self._given in self._made.values() else self._given
        if before:
            _ip("link", "set", before, "down")
            _ip("link", "set", before, "name", device, "address", mac)
        else:
            # A cable to nowhere: a dummy interface would do, where the kernel has them.
            _ip("link", "add", device, "address", mac, "type", "veth", "peer", "name", f"{device}x")
            _ip("link", "set", f"{device}x", "up")
        self._made[device] = before
        self._managed[device] = []
        _ip("link", "set", device, "up")

    def remove(self, device: str) -> None:
        if device not in self._made:
            return
        before = self._made.pop(device)
        del self._managed[device]
        self._seen.pop(device, None)
        if before:
            _ip("addr", "flush", "dev", device)
            _ip("link", "set", device, "down")
            _ip("link", "set", device, "name", before)
        else:
            _ip("link", "del", device)

    def remove_all(self) -> None:
        for device in list(self._made):
            self.remove(device)

    def sync(self, device: str, wanted: list[str]) -> None:
        """Add the wanted addresses, and remove those that it added before and that are not wanted any more."""
        managed = self._managed.get(device)
        if managed is None or managed == wanted:
            return
        for address in set(managed) - set(wanted):
            if address in self._addresses(device):
                _ip("addr", "del", address, "dev", device)
        for address in wanted:
            if address not in managed and address not in self._addresses(device):
                _ip("addr", "add", address, "dev", device)
        self._managed[device] = list(wanted)

    def _addresses(self, device: str) -> set[str]:
        now = time.monotonic()
        at, found = self._seen.get(device, (float("-inf"), set[str]()))
        if now - at > self._cache or not self._cache:
            shown = json.loads(_ip("-json", "addr", "show", "dev", device))
            found = {f"{one['local']}/{one['prefixlen']}" for one in shown[0].get("addr_info", [])}
            self._seen[device] = (now, found)
        return found


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout
