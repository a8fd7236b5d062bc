"""Real ZeroTier One, one process a network namespace: the first is the controller of its networks, and a moon.

Without a default route no planet can be reached, so the moon is the only root there is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.mesh.cables import Cables
from tests.mesh.pairing import until

_START_S = 30.0
_STOP_S = 15.0  # it takes up to 5
# Nothing is asked of a router, and no newer version is looked for.
_LOCAL_CONF = {"settings": {"portMappingEnabled": False, "softwareUpdate": "disable"}}


def why_not() -> str:
    """Why real ones cannot be run here, "" where they can."""
    missing = [name for name in ("zerotier-one", "zerotier-idtool") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not on PATH"
    if os.geteuid() != 0:
        return "making a network namespace needs root"
    return "" if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


class RealProcess:
    """zerotier-one in a namespace of its own. home: made here, with an identity."""

    def __init__(self, home: Path, namespace: str) -> None:
        self.home = home
        self.namespace = namespace
        self.process: subprocess.Popen[bytes] | None = None
        home.mkdir(mode=0o700)
        (home / "local.conf").write_text(json.dumps(_LOCAL_CONF))
        _idtool("generate", home / "identity.secret", home / "identity.public")
        self.address = (home / "identity.public").read_text().split(":")[0]

    def start(self) -> None:
        port = self.home / "zerotier-one.port"
        port.unlink(missing_ok=True)
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "zerotier-one", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: port.exists() and port.read_text(), f"{self.home.name} listens", _START_S, every=0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_STOP_S)
            self.process = None


def prepare(cables: Cables, folder: Path, count: int) -> list[RealProcess]:
    """That many, not started. They know each other by the first, which is their moon."""
    places = [cables.plug("west") for _ in range(count)]
    made = [RealProcess(folder / f"zt{number}", place.namespace) for number, place in enumerate(places)]
    first = made[0].home
    plan = json.loads(_idtool("initmoon", first / "identity.public"))
    plan["roots"][0]["stableEndpoints"] = [f"{places[0].address}/9993"]
    (first / "moon.json").write_text(json.dumps(plan))
    _idtool("genmoon", "moon.json", folder=first)
    (moon,) = first.glob("*.moon")
    for one in made:
        (one.home / "moons.d").mkdir()
        shutil.copy(moon, one.home / "moons.d")
    return made


def _idtool(*words: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(
        ["zerotier-idtool", *map(str, words)],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )
    return done.stdout
