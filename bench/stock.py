"""Plain kubo and ipfs-cluster as their own `init` makes them, for comparison.

Everything that has to do with speed stays at its default. What is set keeps them private, as this is somebody's
machine: a swarm key, loopback TCP addresses, no bootstrap peers, no multicast; and the launcher of meshd, under which
no UDP socket can be opened and which ends them when the bench ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshd.supervise import launch
from scripts import nodes as three
from scripts.nodes import NodeError

KUBO_PORTS = (4001, 5001)
CLUSTER_PORTS = (9094, 9095, 9096, 9097)
_LAUNCHER = Path(launch.__file__)
_READY_S = 60.0


@dataclass
class Engine:
    """One running program of one machine."""

    folder: Path
    argv: list[str]
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Under meshd's launcher: no UDP, and it ends with this process."""
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), "--", *self.argv]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            self.process.wait(patience_s)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self, what: str, check: Callable[[], bool]) -> None:
        """Until `check` is true. Raises NodeError with the end of its output."""
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, OSError):
                if check():
                    return
            time.sleep(0.2)
        last = (self.folder / "log").read_text(errors="replace").splitlines()[-10:]
        raise NodeError("\n  ".join([f"{what} of the stock engines does not come", *last]))


@dataclass(frozen=True)
class Machine:
    """One stock machine: its address and the URLs of its two programs."""

    address: str
    peer_id: str
    kubo: Engine
    cluster: Engine

    @property
    def kubo_url(self) -> str:
        return f"http://{self.address}:5001/api/v0"

    @property
    def cluster_url(self) -> str:
        return f"http://{self.address}:9094"


def call(url: str, method: str = "POST") -> str:
    """One request to a stock program; its answer. Raises URLError."""
    request = urllib.request.Request(url, method=method)  # noqa: S310 - http to loopback
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - an address of loopback
        return str(answer.read().decode())


@contextlib.contextmanager
def kubos(folder: Path, count: int) -> Iterator[list[Machine]]:
    """`count` plain kubos that know each other; stopped and removed afterwards. Raises NodeError."""
    hosts = three.addresses()[:count]
    three.check_ports(hosts, (*KUBO_PORTS, *CLUSTER_PORTS))
    key = f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n"
    homes = [folder / f"stock-{i}" for i in range(count)]
    made: list[Machine] = []
    try:
        for host, home in zip(hosts, homes, strict=True):
            made.append(_make(host, home, key))
            made[-1].kubo.start()
        for machine in made:
            machine.kubo.wait("kubo", lambda m=machine: bool(call(f"{m.kubo_url}/id")))  # type: ignore[misc]
        for machine in made[1:]:
            for other in made[: made.index(machine)]:
                call(
                    f"{machine.kubo_url}/swarm/connect?arg=/ip4/{other.address}/tcp/4001/p2p/{other.peer_id}"
                )
        yield made
    finally:
        for engine in [m.cluster for m in made] + [m.kubo for m in made]:
            engine.stop(10.0)
        for home in homes:
            three.remove(home)


def _make(host: str, home: Path, key: str) -> Machine:
    repo, cluster = home / "kubo", home / "cluster"
    for part in (repo, cluster):
        part.mkdir(parents=True)
    env = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "IPFS_PATH": str(repo),
        "IPFS_CLUSTER_PATH": str(cluster),
    }
    env |= {"LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off"}
    ipfs, service = str(three.ENGINES / "ipfs"), str(three.ENGINES / "ipfs-cluster-service")
    _run(
        [ipfs, "init", "--empty-repo", "--profile=autoconf-off"], env
    )  # kubo refuses a swarm key without this
    (repo / "swarm.key").write_text(key)
    config = json.loads((repo / "config").read_text())
    config["Bootstrap"] = []
    config["Addresses"] |= {"API": f"/ip4/{host}/tcp/5001", "Gateway": [], "Swarm": [f"/ip4/{host}/tcp/4001"]}
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Swarm"]["DisableNatPortMap"] = True
    config.setdefault("AutoTLS", {})["Enabled"] = False
    (repo / "config").write_text(json.dumps(config))
    return Machine(
        host,
        config["Identity"]["PeerID"],
        Engine(repo, [ipfs, "daemon"], env),
        Engine(cluster, [service, "daemon"], env),
    )


def _run(argv: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise NodeError(f"cannot run {Path(argv[0]).name} {argv[1]}: {done.stderr.strip()[-500:]}")


def start_clusters(machines: list[Machine]) -> None:
    """ipfs-cluster beside each kubo, joining those started before it; until each knows all. Raises NodeError."""
    secret = secrets.token_hex(32)
    known: list[str] = []
    for machine in machines:
        engine = machine.cluster
        _run([engine.argv[0], "init", "--consensus", "crdt"], engine.env)
        path = engine.folder / "service.json"
        config: dict[str, Any] = json.loads(path.read_text())
        host = machine.address
        config["cluster"] |= {
            "secret": secret,
            "peername": host,
            "listen_multiaddress": [f"/ip4/{host}/tcp/9096"],
            "mdns_interval": "0s",
        }
        config["api"]["restapi"]["http_listen_multiaddress"] = f"/ip4/{host}/tcp/9094"
        config["api"]["ipfsproxy"]["listen_multiaddress"] = f"/ip4/{host}/tcp/9095"
        config["api"]["ipfsproxy"]["node_multiaddress"] = f"/ip4/{host}/tcp/5001"
        config["api"]["pinsvcapi"]["http_listen_multiaddress"] = f"/ip4/{host}/tcp/9097"
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = f"/ip4/{host}/tcp/5001"
        path.write_text(json.dumps(config))
        if (
            known
        ):  # all that there are, as on loopback addresses they do not find one another through the first
            engine.argv += ["--bootstrap", ",".join(known)]
        engine.start()
        engine.wait("ipfs-cluster", lambda m=machine: bool(call(f"{m.cluster_url}/id", "GET")))  # type: ignore[misc]
        identity = json.loads((engine.folder / "identity.json").read_text())["id"]
        known.append(f"/ip4/{host}/tcp/9096/p2p/{identity}")
    for machine in machines:
        machine.cluster.wait("a complete cluster", lambda m=machine: _peers(m) == len(machines))  # type: ignore[misc]


def _peers(machine: Machine) -> int:
    lines = call(f"{machine.cluster_url}/peers", "GET").splitlines()
    return sum(not json.loads(line).get("error") for line in lines if line.strip())
