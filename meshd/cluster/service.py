"""ipfs-cluster as a supervised program: its folder, its config, its probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meshd import files, memory
from meshd.cluster import config
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.supervise import sockets
from meshd.supervise.child import Launch
from meshd.supervise.engine import check_version, find_engine, gone, restore, run_once

# Its REST API logs each request, and logs the 404 for a record that is not committed yet as an error.
_LOG_LEVEL = "warning,restapi:fatal,restapilog:fatal"
_MEMORY_SHARE = 0.15  # of the machine's memory
_WITHOUT_SECRET = "service-without-secret.json"  # noqa: S105 - the name of a file
SUPPORTED = ("1.1.6", "1.1.7", "1.1.8", "1.1.9")


class ClusterProgram:
    """ipfs-cluster as supervise.Program. Set `place` before each start."""

    name = "cluster"
    ready_timeout = 60.0
    stop_grace = 10.0

    def __init__(self, folder: Path, rest: Cluster, engines: Path | None, owner: Path) -> None:
        self.folder = folder
        self.rest = rest
        self.place: config.ClusterSettings | None = None
        self.redials = 0  # see redial.py
        self.in_memory: Path | None = None  # the folder of service.json where no disk may have its secret
        self.version = ""
        self._engines = engines
        self._owner = owner
        self._binary: Path | None = None

    def _env(self) -> dict[str, str]:
        return {
            "IPFS_CLUSTER_PATH": str(self.folder),
            "IPFS_CLUSTER_LOG_LEVEL": _LOG_LEVEL,
            "HOME": str(self.folder),
            "GOMEMLIMIT": memory.bound_for(_MEMORY_SHARE),
            "PATH": "/usr/bin:/bin",
        }

    async def find(self) -> Path:
        """The binary's path. Checks its version the first time."""
        if self._binary is None:
            binary = find_engine("ipfs-cluster-service", self._engines)
            version = (await run_once([str(binary), "--version"], self._env())).split()[-1].partition("+")[0]
            check_version("ipfs-cluster-service", version.removeprefix("v"), SUPPORTED)
            self._binary, self.version = binary, version
        return self._binary

    async def create(self) -> str:
        """Make the folder where there is none; return this cluster's peer id.

        With leveldb: the default datastore keeps the catalogue in memory, and kill -9 loses it (measured).
        """
        binary = await self.find()
        if not (self.folder / "identity.json").exists() or not (self.folder / "service.json").exists():
            files.private_directory(self.folder)
            argv = [str(binary), "init", "--datastore", "leveldb", "--consensus", "crdt", "--force"]
            await run_once(argv, self._env())
            files.syncfs(self.folder)
        return str(self._read("identity.json")["id"])

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            document = files.read_json(path)
        except FileNotFoundError:
            raise gone(path) from None
        if not isinstance(document, dict):
            hint = f"move {path} away: meshd makes it anew" if name == "service.json" else ""
            raise MeshError(
                Code.BAD_STATE,
                f"cannot use {path}",
                "it is not a file of ipfs-cluster",
                hint or restore(path),
            )
        return document

    async def prepare(self) -> Launch:
        """See supervise.Program."""
        if self.place is None:
            raise MeshError(Code.NO_OVERLAY, "cannot start the cluster", "there is no overlay address")
        binary = await self.find()
        self._read("identity.json")  # never created here: a new identity would be a stranger to the mesh
        self._bring_back()
        await self.create()  # service.json may be missing
        sockets.check_free(self.place.address, self.place.port, "the cluster")
        current = self._read("service.json")
        if "leveldb" not in current.get("datastore", {}):
            raise MeshError(
                Code.BAD_STATE,
                f"cannot use {self.folder}",
                "its datastore is not leveldb, and a change of datastore is a migration",
                f"move {self.folder / 'service.json'} away; the catalogue comes back from the other nodes",
            )
        self._write(current, config.apply(current, self.place))
        self.place.rest_socket.unlink(missing_ok=True)  # after kill -9 it does not start over its old socket
        await self.rest.close()
        return Launch((str(binary), "daemon"), self._env(), self._owner)

    def _bring_back(self) -> None:
        """Restore service.json, which was in memory, after a reboot: from the copy on the disk, without the secret."""
        service, without_secret = self.folder / "service.json", self.folder / _WITHOUT_SECRET
        if service.is_symlink() and not service.exists():
            if without_secret.exists():
                without_secret.replace(service)
            else:
                service.unlink()

    def move_secret(self, folder: Path) -> None:
        """Move service.json to `folder`, where no disk may have its secret. Blocks. Raises MeshError, OSError."""
        self.in_memory = folder
        service = self.folder / "service.json"
        files.remove_unfinished(service)
        if service.exists() and not service.is_symlink():
            current = self._read("service.json")
            self._write(current, current)

    def _write(self, current: dict[str, Any], wanted: dict[str, Any]) -> None:
        service, without_secret = self.folder / "service.json", self.folder / _WITHOUT_SECRET
        if self.in_memory is None:
            was_at = service.readlink() if service.is_symlink() else None
            if wanted != current or was_at is not None:
                files.write_durably(service, json.dumps(wanted, indent=2))
            if was_at is not None:
                was_at.unlink(missing_ok=True)
            without_secret.unlink(missing_ok=True)
            return
        bare = {**wanted, "cluster": {**wanted["cluster"], "secret": ""}}
        files.write_durably(without_secret, json.dumps(bare, indent=2))
        target = files.private_directory(self.in_memory) / "service.json"
        files.write_atomically(target, json.dumps(wanted, indent=2))
        files.link_durably(service, target)

    async def is_ready(self) -> bool:
        """Readiness: it answers with this folder's identity and reports no error of its own."""
        if self.place is None or not self.place.rest_socket.exists():
            return False
        answer = await self.rest.id()
        return answer["id"] == self._read("identity.json")["id"] and not answer.get("error")

    async def ask(self) -> None:
        """See supervise.Program. The request needs no kubo, as `/id` does: else a frozen kubo would look like two."""
        await self.rest.with_room()
