"""A real kubo and a real ipfs-cluster on one loopback address, wired as in the daemon."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

from meshd import files
from meshd.cluster.config import ClusterSettings as ClusterPlace
from meshd.cluster.rest import Cluster
from meshd.cluster.service import ClusterProgram
from meshd.kubo.policy import KuboEndpoint as KuboPlace
from meshd.kubo.rpc import Kubo
from meshd.kubo.service import KuboProgram
from meshd.mesh.secrets import Secrets
from meshd.model import Phase
from meshd.pins.gate import Gate, GateRules
from meshd.pins.storage import Storage
from meshd.pins.uploads import Added, Declared, Uploads
from meshd.supervise.service import Service

_PARTS = Path(__file__).resolve().parents[2] / ".parts" / "bin"
ENGINES = _PARTS if _PARTS.is_dir() else None  # else those on PATH
_numbers = itertools.count(1)


def own_address() -> str:
    """A loopback address that no other test, nor another run of the tests, uses."""
    return f"127.{11 + next(_numbers)}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A socket's path must be short, which pytest's folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="m"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Machine:
    """Folders, clients, programs and services of one node. `start_kubo` and `start_cluster`, then `stop`."""

    def __init__(self, folder: Path) -> None:
        self.address = own_address()
        self.state = files.private_directory(folder / "s")
        self.private = files.private_directory(folder / "p")
        self.secrets = Secrets.generate()
        self.kubo = Kubo(self.private / "kubo.sock")
        self.cluster = Cluster(self.private / "cluster.sock")
        repo = files.private_directory(self.state / "kubo")
        self.kubo_program = KuboProgram(repo, self.kubo, ENGINES, self.state)
        catalogue = files.private_directory(self.state / "cluster")
        self.cluster_program = ClusterProgram(catalogue, self.cluster, ENGINES, self.state)
        self.kubo_service = Service(self.kubo_program, lambda: None)
        self.cluster_service = Service(self.cluster_program, lambda: None)
        self.kubo_port, self.cluster_port = free_port(self.address), free_port(self.address)
        self.storage = Storage(repo, reserve=0, offer=None)
        self.uploads = Uploads(self.kubo, self.storage)
        self.disk = files.Disk(repo)
        self.rules = Rules()
        self.gate = Gate(self.private / "gate.sock", self.kubo, self.disk, self.rules.as_gate_rules())

    def place_kubo(self) -> None:
        """Set what the daemon sets before each start."""
        self.kubo_program.place = KuboPlace(self.address, self.kubo_port, self.kubo.socket)
        self.kubo_program.swarm_key = self.secrets.swarm_key

    def place_cluster(self) -> None:
        self.cluster_program.place = ClusterPlace(
            address=self.address,
            port=self.cluster_port,
            rest_socket=self.cluster.socket,
            gate_socket=self.gate.socket,
            name="attic",
            mesh_id="m1",
            secret=self.secrets.cluster_secret,
            trusted=(),
            peers=(),
        )

    async def start_kubo(self) -> None:
        self.place_kubo()
        await self.kubo_program.create()
        await self.kubo_service.start("s")
        assert self.kubo_service.state.phase is Phase.READY, self.kubo_service.state.last_exit

    async def start_cluster(self) -> None:
        await self.gate.start()
        self.place_cluster()
        await self.cluster_program.create()
        await self.cluster_service.start("s")
        assert self.cluster_service.state.phase is Phase.READY, self.cluster_service.state.last_exit

    async def stop(self) -> None:
        await self.cluster_service.stop("the tests are over", grace=0)
        await self.gate.stop()
        await self.kubo_service.stop("the tests are over", grace=0)
        await self.cluster.close()
        await self.kubo.close()

    async def add(self, *parts: Part, declared: Declared | None = None, body: bytes | None = None) -> Added:
        """Upload as the control API does."""
        boundary = "b" + secrets.token_hex(8)
        whole = multipart(boundary, *parts) if body is None else body
        return await self.uploads.add(
            chunks(whole),
            f"multipart/form-data; boundary={boundary}",
            declared or Declared("entry", directory=None, size=None, files=None),
            nobody_listens,
        )


class Rules:
    """The rules that the gate asks for, in a test's hand."""

    def __init__(self) -> None:
        self.refusals: dict[str, str] = {}
        self.full = ""
        self.free = 1_000_000_000_000
        self.removed: list[str] = []
        self.members: set[str] = set()

    def as_gate_rules(self) -> GateRules:
        async def refuse(cid: str) -> str:
            return self.refusals.get(cid, "")

        async def removed(cid: str) -> None:
            self.removed.append(cid)

        return GateRules(
            refuse=refuse,
            full=lambda: self.full,
            removed=removed,
            free=lambda: self.free,
            member=lambda peer_id: peer_id in self.members,
        )


class Part:
    """One part of a multipart body, as kubo's add takes it."""

    def __init__(self, where: str, content: bytes = b"", kind: str = "application/octet-stream") -> None:
        self.where = where
        self.content = content
        self.kind = kind


def directory(where: str) -> Part:
    return Part(where, kind="application/x-directory")


def symlink(where: str, target: str) -> Part:
    return Part(where, target.encode(), "application/symlink")


def multipart(boundary: str, *parts: Part) -> bytes:
    body = b""
    for part in parts:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quote(part.where, safe="")}"\r\n'
            f"Content-Type: {part.kind}\r\n\r\n"
        )
        body += head.encode() + part.content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


async def chunks(body: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def nobody_listens(_: int) -> None:
    pass


def noise(size: int) -> bytes:
    """Random content that is in no repository yet."""
    return secrets.token_bytes(size)
