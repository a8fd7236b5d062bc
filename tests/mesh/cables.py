"""Network partitions: nodes in network namespaces on two switches, with a cable between them to cut. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from typing import Literal, NamedTuple

import pytest

Side = Literal["west", "east"]
NEEDS_CABLES = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace needs root"),
]


class Socket(NamedTuple):
    """A machine's place: its network namespace, and its address there."""

    namespace: str
    address: str


class Cables:
    """The two switches, in a namespace of their own, which hides them from this machine."""

    def __init__(self) -> None:
        self._mark = f"mesh{os.getpid()}"
        self._numbers = itertools.count(1)
        self._namespaces: list[str] = []
        self._hub = self._namespace("hub")
        for side in ("west", "east"):
            _ip("-n", self._hub, "link", "add", side, "type", "bridge")
            _ip("-n", self._hub, "link", "set", side, "up")
        _ip("-n", self._hub, "link", "add", "cable", "type", "veth", "peer", "name", "cablex")
        _ip("-n", self._hub, "link", "set", "cable", "master", "west")
        _ip("-n", self._hub, "link", "set", "cablex", "master", "east")
        self.mend()

    def plug(self, side: Side) -> Socket:
        """Make a place for one more machine on that side."""
        number = next(self._numbers)
        namespace, port = self._namespace(str(number)), f"port{number}"
        _ip("-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._hub, "link", "set", port, "master", side, "up")
        _ip("-n", namespace, "addr", "add", f"10.231.0.{number}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", link, "up")
        return Socket(namespace, f"10.231.0.{number}")

    def cut(self) -> None:
        """Partition the network: no packet passes between west and east from now on."""
        for end in ("cable", "cablex"):
            _ip("-n", self._hub, "link", "set", end, "down")

    def mend(self) -> None:
        for end in ("cable", "cablex"):
            _ip("-n", self._hub, "link", "set", end, "up")

    def _namespace(self, name: str) -> str:
        made = f"{self._mark}-{name}"
        _ip("netns", "add", made)
        self._namespaces.append(made)
        _ip("-n", made, "link", "set", "lo", "up")
        return made

    def remove(self) -> None:
        for namespace in reversed(self._namespaces):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def cables() -> Iterator[Cables]:
    """Request it before `make_node`: what is set up first is torn down last."""
    try:
        made = Cables()
    except (subprocess.CalledProcessError, FileNotFoundError) as exc:
        pytest.skip(f"network namespaces cannot be made here: {exc}")
    yield made
    made.remove()
