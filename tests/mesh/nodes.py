"""Real nodes: `meshd run` as a process of its own, driven as a person would, by meshctl and over its socket."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.mesh.pairing import Reply, unix_request, until

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = REPOSITORY / ".venv" / "bin"
ENGINES = REPOSITORY / ".parts" / "bin"
PORTS = (4001, 9096, 4010)
METRICS_PORT = 4011
MARK = "MESHD_CHILD_OF"
NAMES = ("attic", "barn", "cellar", "dairy", "eaves", "forge")
START_S = 60.0
STOP_S = 75.0
RUNNING: list[Node] = []
"""Started nodes that are not closed yet: a failing test shows their logs, and the sampler their sockets."""


class Answer(NamedTuple):
    """What a program printed, and its exit code."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """What `--json` printed, one document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def document(self) -> dict[str, Any]:
        """The last document that `--json` printed."""
        return self.events()[-1]


def environment(**more: str) -> dict[str, str]:
    """The tests' environment, without variables that would point meshctl or the engines elsewhere."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MESHD_", "MESHCTL_", "IPFS_", "CLUSTER_"))
    }
    return {**kept, "COLUMNS": "200", **more}


def run(
    argv: Sequence[str | Path], *, timeout: float, stdin: bytes | str | None = None, **env: str
) -> Answer:
    """Run a program to its end. env: more of it. Raises subprocess.TimeoutExpired."""
    fed = stdin.encode() if isinstance(stdin, str) else stdin or b""
    done = subprocess.run(
        argv,
        input=fed,
        capture_output=True,
        timeout=timeout,
        env=environment(**env),
    )
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def marked(state: Path) -> list[int]:
    """Pids of the processes of a state folder, by the mark in their environment."""
    wanted = f"{MARK}={state}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(pid: int, number: signal.Signals = signal.SIGKILL, seconds: float = 20.0) -> None:
    """Send a signal that ends `pid`, and return when it is gone; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, number)
            assert select.select([fd], [], [], seconds)[0], f"process {pid} does not end"
        finally:
            os.close(fd)


class Node:
    """One machine. Its folder has a short name because a socket's path may have 107 bytes."""

    def __init__(
        self,
        name: str,
        address: str,
        *,
        interface: str = "",
        metrics: str = "",
        site: str = "",
        reserve: str = "1MiB",
        offer: str = "",
        replicas: int | str = 3,
        trash: str = "30d",
        heal_after: str = "10m",
        engines: Path = ENGINES,
        namespace: str = "",
    ) -> None:
        """interface: where the address is looked up instead; `address` is then only what it has at first. namespace: a
        network namespace in which it runs."""
        self.name = name
        self.address = address
        self.folder = Path(tempfile.mkdtemp(prefix="m"))
        self.state = self.folder / "s"
        self.run_folder = self.folder / "r"
        self.socket = self.run_folder / "meshd.sock"
        self.log = self.folder / "log"
        self.config = self.folder / "meshd.toml"
        self.metrics_address = metrics or address
        self.credentials: Path | None = None  # the folder that systemd would hand over
        self._within = ["ip", "netns", "exec", namespace] if namespace else []
        self.process: subprocess.Popen[bytes] | None = None
        where = f"interface = {json.dumps(interface)}" if interface else f"address = {json.dumps(address)}"
        self.config.write_text(
            f"[node]\nname = {json.dumps(name)}\nsite = {json.dumps(site)}\n"
            f"[paths]\nstate = {json.dumps(str(self.state))}\nrun = {json.dumps(str(self.run_folder))}\n"
            f"engines = {json.dumps(str(engines))}\n"
            f'[overlay]\nkind = "static"\n{where}\n'
            f"[storage]\nreserve = {json.dumps(reserve)}\noffer = {json.dumps(offer)}\n"
            f"[pins]\nreplicas = {json.dumps(replicas)}\ntrash = {json.dumps(trash)}\n"
            f"heal_after = {json.dumps(heal_after)}\n"
            f'[metrics]\nlisten = "{self.metrics_address}:{METRICS_PORT}"\n[log]\nformat = "json"\n'
        )

    def __repr__(self) -> str:
        return f"{self.name}@{self.address}"

    # -- the process -----------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Node:
        """Start it, and return when its socket answers. It may not be ready yet."""
        self.begin()
        until(self._answers, f"{self} answers on its socket", START_S, every=0.05)
        return self

    def begin(self) -> None:
        """Start it and return at once."""
        assert not self.alive
        argv: list[str | Path] = [*self._within, BIN / "meshd", "run", "--config", self.config]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(**self._handed_over()),
                cwd=self.folder,
                start_new_session=True,
            )
        if self not in RUNNING:
            RUNNING.append(self)

    def _handed_over(self) -> dict[str, str]:
        return {} if self.credentials is None else {"CREDENTIALS_DIRECTORY": str(self.credentials)}

    def _answers(self) -> bool:
        assert self.alive, f"{self} ended by itself:\n{self.tail()}"
        with contextlib.suppress(OSError):
            return self.api("GET", "/healthz").status == 200
        return False

    def wait_ready(self, seconds: float = START_S) -> Node:
        """Return when it serves."""
        until(lambda: self.alive and self.ready(), f"{self} is ready", seconds)
        return self

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.api("GET", "/readyz", timeout=10.0).status == 200
        return False

    def places(self) -> int:
        """On how many nodes its cluster can place a copy: of so many it has heard the free space in the last four seconds."""
        with contextlib.suppress(OSError):
            known = unix_request(
                self.run_folder / "private" / "cluster.sock",
                "GET",
                "/monitor/metrics/freespace",
                timeout=10.0,
            )
            if known.status == 200:
                return sum(m.get("valid", True) for m in known.json() or ())
        return 0

    def terminate(self) -> None:
        """Ask it to stop; `wait_stopped` waits for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Wait until it exits by itself; check that the code is 0 and no child is left."""
        assert self.process is not None
        code = self.process.wait(STOP_S)
        assert code == 0, f"{self} ended with {code}:\n{self.tail()}"
        assert not marked(self.state), f"{self} left children behind"

    def stop(self) -> None:
        """Stop it in order, as systemctl stop does."""
        self.terminate()
        self.wait_stopped()

    def move(self, address: str, seeds: Sequence[str] = ()) -> None:
        """Give a stopped node another address, and those seeds, for its next start."""
        assert not self.alive
        text = self.config.read_text().replace(json.dumps(self.address), json.dumps(address), 1)
        self.config.write_text(f"{text}[mesh]\nseeds = {json.dumps(list(seeds))}\n")
        self.address = address

    def kill9(self) -> None:
        """kill -9 of meshd alone; its children die with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def kill9_all(self) -> None:
        """kill -9 of meshd and its descendants."""
        for pid in [*([self.process.pid] if self.process and self.alive else []), *marked(self.state)]:
            end(pid)
        if self.process is not None:
            self.process.wait(20)

    def close(self) -> None:
        """End whatever is left of it, and remove its folder."""
        if self.process is not None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
            self.kill9_all()
        if self in RUNNING:
            RUNNING.remove(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, lines: int = 25) -> str:
        """The end of its log, without the engines' output of normal operation."""
        if not self.log.exists():
            return ""
        every = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line[:500] for line in every if "\\tINFO\\t" not in line][-lines:])

    def records(self) -> list[dict[str, Any]]:
        """Its log, as the events that they are."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [r for r in found if isinstance(r, dict)]

    # -- as a person, and as a script ------------------------------------------------------------------------------

    def meshctl(self, *words: str | Path, stdin: bytes | None = None, timeout: float = 90.0) -> Answer:
        """Type it on this machine."""
        return run([BIN / "meshctl", *words], stdin=stdin, timeout=timeout, MESHD_SOCKET=str(self.socket))

    def do(self, *words: str | Path, stdin: bytes | None = None, timeout: float = 90.0) -> Answer:
        """Type it, and check that it succeeds."""
        answer = self.meshctl(*words, stdin=stdin, timeout=timeout)
        assert answer.code == 0, f"meshctl {' '.join(map(str, words))} on {self}: {answer}"
        return answer

    def popen(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Type it without waiting. The caller waits for its end."""
        return subprocess.Popen(
            [BIN / "meshctl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(MESHD_SOCKET=str(self.socket)),
            start_new_session=True,
        )

    def api(self, method: str, target: str, body: object = None, *, timeout: float = 60.0) -> Reply:
        """A request over the Unix socket. Raises OSError."""
        return unix_request(self.socket, method, target, body, timeout=timeout)

    def get(self, target: str) -> Any:
        """The document at `target`."""
        reply = self.api("GET", target)
        assert reply.status == 200, f"GET {target} on {self}: {reply}"
        return reply.json()

    def pin(self, path: Path, *words: str) -> dict[str, Any]:
        """`meshctl pin`; the entry as it was acknowledged."""
        entry: dict[str, Any] = self.do("pin", path, *words, "--json").document()["entry"]
        return entry

    # -- what it says ----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.get("/v1/status")
        return document

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Code -> active condition."""
        return {c["code"]: c for c in self.status()["conditions"]}

    def pid_of(self, service: str) -> int | None:
        """The process of `kubo` or `cluster`; None while there is none."""
        found: int | None = next(s["pid"] for s in self.status()["services"] if s["name"] == service)
        return found

    def service(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(s for s in self.status()["services"] if s["name"] == name)
        return found

    def peers(self) -> dict[str, dict[str, Any]]:
        """The members as it knows them, by name."""
        return {p["name"]: p for p in self.get("/v1/peers")["peers"]}

    def entries(self, name: str = "") -> list[dict[str, Any]]:
        """The entries of its list, with their holders. name: exact."""
        found = self.get("/v1/pins?copies=1")["entries"]
        return [e for e in found if not name or e["name"] == name]

    def holders(self, name: str) -> set[str]:
        """The nodes that hold the newest entry of that name, as this node sees it."""
        newest = [e for e in self.entries(name) if e["version"] == 1]
        return {c["node"] for e in newest for c in e["copies"] if c["state"] == "held"}

    def until_held_by(self, name: str, nodes: set[str]) -> None:
        """Wait until exactly those nodes hold it: a node that answers late is missing from one list."""
        until(lambda: self.holders(name) == nodes, f"{name} is on {', '.join(sorted(nodes))}")

    def trash(self) -> dict[str, dict[str, Any]]:
        """Name -> entry of its trash."""
        return {e["name"]: e for e in self.get("/v1/trash")["entries"]}

    # -- its engines, asked themselves -----------------------------------------------------------------------------

    def kubo(self, *words: str, timeout: float = 60.0) -> Answer:
        """kubo's own command line."""
        api = f"/unix{self.run_folder}/private/kubo.sock"
        return run(
            [ENGINES / "ipfs", "--api", api, *words], timeout=timeout, IPFS_PATH=str(self.folder / "none")
        )

    def cluster_ctl(self, *words: str, timeout: float = 60.0) -> Answer:
        """ipfs-cluster's own command line."""
        host = f"/unix{self.run_folder}/private/cluster.sock"
        return run([ENGINES / "ipfs-cluster-ctl", "--host", host, *words], timeout=timeout)

    def pinned(self) -> set[str]:
        """The CIDs that its kubo has pinned recursively, so holds as a whole."""
        answer = self.kubo("pin", "ls", "--type=recursive", "--quiet")
        assert answer.code == 0, answer
        return set(answer.out.split())

    def has_block(self, cid: str) -> bool:
        """Whether its kubo stores that block."""
        socket_path = self.run_folder / "private" / "kubo.sock"
        return unix_request(socket_path, "POST", f"/api/v0/block/stat?arg={cid}&offline=true").status == 200

    def collect_garbage(self) -> None:
        answer = self.kubo("repo", "gc", "--quiet")
        assert answer.code == 0, answer

    def content(self, reference: str) -> bytes:
        """The bytes of an entry, read from this node."""
        reply = self.api("GET", f"/v1/pins/{reference}/content", timeout=90.0)
        assert reply.status == 200, reply
        return reply.body


class Mesh:
    """A mesh of nodes, made by init, invite and join. The first is the founder."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self.full: set[str] = set()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def build(self, full: Iterable[str] = ()) -> Mesh:
        """Start every node and make them one mesh. full: names of nodes that take no content."""
        self.full = set(full)
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            until(node._answers, f"{node} answers on its socket", START_S, every=0.05)
        founder = self.nodes[0]
        founder.do("init", "--name", "archive")
        for node in self.nodes[1:]:
            self.admit(node, founder)
        self.wait_whole()
        return self

    def admit(self, node: Node, by: Node) -> None:
        """`by` invites, `node` joins."""
        line = by.do("invite").out.strip()
        node.do("join", line)
        if node not in self.nodes:
            self.nodes.append(node)

    def wait_whole(self, seconds: float = 90.0) -> None:
        """Wait until every node serves, and knows every other one as reachable and accepting content."""
        names = {n.name for n in self.nodes}

        def whole(node: Node) -> bool:
            if not node.ready():
                return False
            peers = node.peers()
            taking = {p["name"] for p in peers.values() if p["accepts"]}
            return (
                set(peers) == names
                and all(p["reachable"] for p in peers.values())
                and taking == names - self.full
                and node.places() >= len(taking)
            )

        for node in self.nodes:
            until(lambda node=node: whole(node), f"{node} sees the whole mesh", seconds)

    def start_all(self) -> None:
        """Start those that do not run, at once, and wait until the mesh is whole."""
        for node in self.nodes:
            if not node.alive:
                node.begin()
        for node in self.nodes:
            until(node._answers, f"{node} answers on its socket", START_S, every=0.05)
        self.wait_whole()

    def close(self) -> None:
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.close()


class Subnet:
    """A /24 of loopback, reserved for as long as this object is open."""

    def __init__(self) -> None:
        self._claim: socket.socket | None = None
        self._next = 0
        seed = int(time.time() * 1000) ^ os.getpid()
        for step in range(200):
            third = 1 + (seed + step * 37) % 254
            if self._take(third):
                self.prefix = f"127.31.{third}"
                return
        raise AssertionError("cannot find a free /24 in 127.31.0.0/16")

    def _take(self, third: int) -> bool:
        claim = socket.socket()  # bound and not listening, which reserves it as well
        try:
            claim.bind((f"127.31.{third}.254", METRICS_PORT))
            for last in range(1, 9):
                for port in (*PORTS, METRICS_PORT):
                    with socket.socket() as probe:
                        probe.bind((f"127.31.{third}.{last}", port))
        except OSError:
            claim.close()
            return False
        self._claim = claim
        return True

    def address(self) -> str:
        """A fresh address of it."""
        self._next += 1
        assert self._next < 250, "the /24 is used up"
        return f"{self.prefix}.{self._next}"

    def close(self) -> None:
        if self._claim is not None:
            self._claim.close()
