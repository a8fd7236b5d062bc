"""A fake service as a process of its own: in a network namespace, or on this machine's loopback where nobody is root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.mesh.pairing import until
from tests.zerotier.membership import Timing
from tests.zerotier.planet import Planet

REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 20.0
_STOP_S = 10.0


class ServiceProcess:
    """namespace: "" for this machine's own loopback, without an interface and on any free port."""

    def __init__(
        self, home: Path, planet: Planet, address: str, *, timing: Timing, namespace: str = "", endpoint: str
    ) -> None:
        self.home = home
        self.address = address
        self.namespace = namespace
        into = ["ip", "netns", "exec", namespace] if namespace else []
        self._argv = [*into, sys.executable, "-m", "tests.zerotier.service"]
        self._argv += ["--home", str(home), "--planet", str(planet.path), "--address", address]
        self._argv += ["--timing", timing.as_json(), "--endpoint", endpoint]
        self._argv += ["--device", "zt0"] if namespace else ["--port", "0"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it listens."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        port = self.home / "zerotier-one.port"
        port.unlink(missing_ok=True)
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=_environment(),
            )
        until(self._listens, f"{self.home.name} listens; its log: {self.home / 'log'}", _START_S, every=0.02)

    def _listens(self) -> bool:
        assert self.process is None or self.process.poll() is None, (self.home / "log").read_text()
        port = self.home / "zerotier-one.port"
        return port.exists() and port.read_text().isdigit()

    def stop(self) -> None:
        """As systemd stops it. Stopped already is no mistake."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(_STOP_S)
            self.process = None


def _environment() -> dict[str, str]:
    """The service reads none of it, so the tests' own must not reach it either."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
