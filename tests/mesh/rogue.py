"""A rogue ipfs-cluster: it has the mesh's secret, no supervision, and settings of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.mesh.nodes import ENGINES, Answer, Mesh, Node, end, environment, run
from tests.mesh.pairing import until


class Rogue:
    """A cluster peer on an address of its own. It trusts all peers and connects to every member of the mesh."""

    def __init__(self, mesh: Mesh, address: str, *, identity_of: Node | None = None) -> None:
        """identity_of: a stopped node whose folder is used, with its identity and its copy of the catalogue."""
        self.folder = Path(tempfile.mkdtemp(prefix="m"))
        self.socket = self.folder / "rest.sock"
        self.path = self.folder / "c"
        self._process: subprocess.Popen[bytes] | None = None
        self._env = environment(IPFS_CLUSTER_PATH=str(self.path), HOME=str(self.folder))
        if identity_of is None:
            argv: list[str | Path] = [ENGINES / "ipfs-cluster-service", "init"]
            argv += ["--datastore", "leveldb", "--consensus", "crdt"]
            assert run(argv, timeout=60, IPFS_CLUSTER_PATH=str(self.path)).code == 0
        else:
            shutil.copytree(identity_of.state / "cluster", self.path)
        self._configure(mesh, address, "" if identity_of is None else identity_of.name)

    def _configure(self, mesh: Mesh, address: str, own: str) -> None:
        members = [n for n in mesh if n.name != own]
        config = json.loads((members[0].state / "cluster" / "service.json").read_text())
        config["cluster"]["peername"] = "rogue"
        config["cluster"]["listen_multiaddress"] = [f"/ip4/{address}/tcp/9096"]
        config["cluster"]["peer_addresses"] = [
            f"/ip4/{n.address}/tcp/9096/p2p/{self._id(n.state / 'cluster')}" for n in members
        ]
        config["consensus"]["crdt"]["trusted_peers"] = ["*"]
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = f"/unix{self.folder}/kubo.sock"
        config["api"]["restapi"]["http_listen_multiaddress"] = f"/unix{self.socket}"
        (self.path / "service.json").write_text(json.dumps(config))

    @staticmethod
    def _id(folder: Path) -> str:
        document: dict[str, Any] = json.loads((folder / "identity.json").read_text())
        return str(document["id"])

    def start(self) -> Rogue:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [ENGINES / "ipfs-cluster-service", "daemon"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        until(lambda: self.socket.exists() and self.ctl("id").code == 0, "the rogue answers", 60)
        return self

    def ctl(self, *words: str) -> Answer:
        return run([ENGINES / "ipfs-cluster-ctl", "--host", f"/unix{self.socket}", *words], timeout=30)

    def pinset(self) -> set[str]:
        """The CIDs of the pinset, as it sees it."""
        answer = self.ctl("--enc=json", "pin", "ls")
        if answer.code != 0:
            return set()
        decoder, text, found = json.JSONDecoder(), answer.out.strip(), set()
        while text:
            document, length = decoder.raw_decode(text)
            for pin in document if isinstance(document, list) else [document]:
                cid = pin["cid"]
                found.add(cid["/"] if isinstance(cid, dict) else cid)
            text = text[length:].strip()
        return found

    def peers(self) -> int:
        """How many other cluster peers it is connected to."""
        answer = self.ctl("--enc=json", "id")
        return len(json.loads(answer.out)["cluster_peers"]) - 1 if answer.code == 0 else 0

    def remove(self, cids: set[str]) -> None:
        for cid in cids:
            self.ctl("pin", "rm", "--no-status", cid)

    def tail(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-30:])

    def close(self) -> None:
        if self._process is not None:
            end(self._process.pid)
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
