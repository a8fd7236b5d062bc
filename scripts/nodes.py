"""Three real nodes on loopback addresses of this machine: the ground that the demo and the bench stand on.

Each node is a `meshd run` of its own with a folder of its own, in a session of its own, so that Ctrl-C at the terminal
reaches only the program that started them, which then stops them in order and by pid.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from meshd.errors import Code, MeshError
from meshd.supervise import sockets
from meshd.supervise.child import MARK

CHECKOUT = Path(__file__).resolve().parent.parent
ENGINES = CHECKOUT / ".parts" / "bin"
MESHD = CHECKOUT / ".venv" / "bin" / "meshd"
MESHCTL = CHECKOUT / ".venv" / "bin" / "meshctl"
NAMES = ("attic", "cellar", "desk")
PORTS = {4001: "kubo", 9096: "ipfs-cluster", 4010: "the peer API", 4011: "metrics"}
BASE = "DEMO_BASE"
"""Environment variable: the first of the three addresses, for whom the usual ones are taken."""

_FIRST = "127.0.0.1"
_START_S = 60.0
_STOP_S = 45.0
_DEEPEST = 107 - len("/cellar/run/private/cluster.sock")  # a socket's path is at most 107 bytes
_PARENTS = tuple(dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")))  # noqa: S108 - mkdtemp is safe there
_CONFIG = """\
[node]
name = "{name}"
[paths]
state = "{folder}/state"
run = "{folder}/run"
engines = "{engines}"
[overlay]
kind = "static"
address = "{address}"
[storage]
reserve = "64MiB"
[metrics]
listen = "{address}:4011"
[log]
format = "text"
"""


class NodeError(Exception):
    """What a person must be told: what cannot be done, and what to type. `node`: whose log tells more."""

    def __init__(self, text: str, node: Node | None = None) -> None:
        super().__init__(text)
        self.node = node


@dataclass
class Node:
    """One node. `process` is set while it runs as a child of this program."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def config(self) -> Path:
        return self.folder / "meshd.toml"

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "meshd.sock"

    @property
    def log(self) -> Path:
        return self.folder / "meshd.log"

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    @property
    def ended(self) -> str:
        """How its daemon ended without being asked; empty where it did not."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return ""
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def start(self) -> None:
        """Start its daemon; `wait` says when it answers."""
        self.folder.mkdir(exist_ok=True)
        text = _CONFIG.format(name=self.name, folder=self.folder, engines=ENGINES, address=self.address)
        self.config.write_text(text)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [MESHD, "run", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def wait(self, timeout: float = _START_S) -> None:
        """Until its control socket takes connections. Raises NodeError."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.ended:
                raise NodeError(f"meshd on {self.name} does not start: it {self.ended}", self)
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.connect(str(self.socket))
                return
            time.sleep(0.05)
        raise NodeError(f"meshd on {self.name} does not answer after {timeout:.0f} s", self)

    def last_lines(self, count: int = 25) -> list[str]:
        """The end of its log, long lines cut."""
        try:
            return [line[:300] for line in self.log.read_text(errors="replace").splitlines()[-count:]]
        except OSError:
            return []


def make_folder(prefix: str) -> Path:
    """A new folder with a path short enough for sockets. Raises NodeError."""
    for parent in _PARENTS:
        if len(os.fsencode(parent)) + len(prefix) + 9 <= _DEEPEST and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise NodeError("cannot make a folder with a short path; type: TMPDIR=/tmp make demo")


def addresses() -> list[str]:
    """Three addresses in a row, from $DEMO_BASE or 127.0.0.1. Raises NodeError."""
    first = os.environ.get(BASE) or _FIRST
    try:
        base = ipaddress.IPv4Address(first)
        found = [base + i for i in range(len(NAMES))]
    except ValueError:
        raise NodeError(f"{BASE}={first} is no IPv4 address; for example: {BASE}=127.0.0.11") from None
    if not all(address.is_loopback for address in found):
        raise NodeError(f"{BASE}={first} is not on loopback; for example: {BASE}=127.0.0.11")
    return [str(address) for address in found]


def make_nodes(folder: Path) -> list[Node]:
    """The three nodes, not started. Raises NodeError."""
    return [Node(name, address, folder / name) for name, address in zip(NAMES, addresses(), strict=True)]


def check_parts() -> None:
    """Raises NodeError where `make setup` has not been here."""
    for path in (MESHD, MESHCTL, ENGINES / "ipfs", ENGINES / "ipfs-cluster-service"):
        if not os.access(path, os.X_OK):
            raise NodeError(f"cannot find {path.relative_to(CHECKOUT)}; type: make setup")


def check_ports(hosts: Sequence[str], ports: Sequence[int] = tuple(PORTS)) -> None:
    """Raises NodeError that names who holds each port that is taken."""
    taken: dict[str, list[str]] = {}
    for host in hosts:
        for port in ports:
            try:
                sockets.check_free(host, port, "this")
            except MeshError as exc:
                if exc.code is Code.NO_OVERLAY:
                    raise NodeError(
                        f"cannot use {host}: it is not on this machine (ip address show lo)"
                    ) from exc
                taken.setdefault(_whose(host, port), []).append(f"{host}:{port}")
    if taken:
        lines = [f"  {' and '.join(where)}: {who}" for who, where in taken.items()]
        raise NodeError("cannot start three nodes here, because ports are taken:\n" + "\n".join(lines))


def _whose(host: str, port: int) -> str:
    """`ipfs (pid 12), of the node in /tmp/n1`, as far as this user may see."""
    with contextlib.suppress(psutil.Error):
        for c in psutil.net_connections(kind="tcp"):
            here = c.laddr and c.laddr.port == port and c.laddr.ip in (host, "0.0.0.0", "::")  # noqa: S104 - compared
            if here and c.status == psutil.CONN_LISTEN and c.pid is not None:
                process = psutil.Process(c.pid)
                return f"{process.name()} (pid {c.pid}){_node_of(process)}"
    return "a program that this user may not look into; as root: ss -ltnp"


def _node_of(process: psutil.Process) -> str:
    """Where a daemon or an engine of meshd keeps its state; empty for other programs. Raises psutil.Error."""
    owner, words = process.environ().get(MARK, ""), process.cmdline()
    if not owner and "--config" in words[:-1]:
        owner = words[words.index("--config") + 1]
    return f", of the node in {Path(owner).parent}" if owner else ""


def start(nodes: Sequence[Node]) -> None:
    """Start all and wait until all answer. Raises NodeError."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait()


def found_mesh(nodes: Sequence[Node], name: str) -> None:
    """The first node begins a mesh, the others join it, and each has met each. Raises NodeError."""
    first, *others = nodes
    ask(first, "init", "--name", name)
    for node in others:
        invite = ask(first, "invite")["invite"]
        ask(node, "join", given=f"{invite}\n")
    wait_until_met(nodes)


def wait_until_met(nodes: Sequence[Node], timeout: float = 30.0) -> None:
    """Until each node reaches each other and finds that it takes content. Raises NodeError."""
    until = time.monotonic() + timeout
    for node in nodes:
        while not _met(ask(node, "peers"), len(nodes)):
            if time.monotonic() > until:
                raise NodeError(f"{node.name} does not reach the others after {timeout:.0f} s", node)
            time.sleep(0.2)


def _met(answer: dict[str, Any], count: int) -> bool:
    there = [peer for peer in answer["peers"] if peer["this_node"] or (peer["reachable"] and peer["accepts"])]
    return len(there) == count


def stop(nodes: Sequence[Node], *, patience_s: float = _STOP_S) -> list[str]:
    """End every node's daemon, by pid: SIGTERM, then SIGKILL. Its engines end with it. Names those that were killed."""
    running = [node for node in nodes if node.process is not None]
    killed = []
    try:
        for node in running:
            _send(node, signal.SIGTERM)
        until = time.monotonic() + patience_s
        for node in running:
            assert node.process is not None  # noqa: S101 - filtered above
            try:
                node.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                killed.append(node.name)
    finally:  # also where a second Ctrl-C ends the waiting
        for node in running:
            _send(node, signal.SIGKILL)
            assert node.process is not None  # noqa: S101 - filtered above
            node.process.wait()
            node.process = None
    return killed


def _send(node: Node, number: signal.Signals) -> None:
    if node.process is not None and node.process.poll() is None:
        node.process.send_signal(number)


def left_behind(prefix: str) -> tuple[list[Path], list[psutil.Process]]:
    """Folders that earlier runs of this user made, and the daemons that still run in one, be it there or not."""
    folders = [
        folder
        for parent in _PARENTS
        for folder in sorted(Path(parent).glob(f"{prefix}*"))
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
    ]
    daemons = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            inside = len(words) > 3 and Path(words[-1]).parent.parent.name.startswith(prefix)
            if inside and words[-3:-1] == ["run", "--config"] and process.uids().effective == os.geteuid():
                daemons.append(process)
    return folders, daemons


def end(processes: Sequence[psutil.Process], *, patience_s: float = _STOP_S) -> None:
    """SIGTERM, then SIGKILL after `patience_s`. psutil holds pid and start time, so no other process is hit."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=patience_s)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def remove(folder: Path) -> None:
    """The folder and all in it."""
    shutil.rmtree(folder, ignore_errors=True)


def environment(node: Node) -> dict[str, str]:
    """What a person at this node has in the environment; output comes in the order it is written."""
    return {**os.environ, "MESHD_SOCKET": str(node.socket), "PYTHONUNBUFFERED": "1"}


def ask(node: Node, *words: str, given: str = "", timeout: float = 60.0) -> dict[str, Any]:
    """`meshctl --json WORDS` on `node`: its last document. Raises NodeError."""
    try:
        done = subprocess.run(
            [MESHCTL, "--json", *words],
            env=environment(node),
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise NodeError(
            f"`meshctl {words[0]}` on {node.name} took longer than {timeout:.0f} s", node
        ) from None
    if done.returncode != 0:
        raise NodeError(f"`meshctl {words[0]}` on {node.name} failed: {done.stderr.strip()}", node)
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def interruptible() -> None:
    """SIGTERM and SIGHUP end this program as Ctrl-C does; names that no locale has are shown somehow."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, _interrupt)


def deaf() -> None:
    """From here on no signal but SIGKILL stops the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
