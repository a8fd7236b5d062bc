"""kubo as a supervised program: its repository, its config by policy, its swarm key, its probes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from meshd import files, memory
from meshd.errors import Code, MeshError
from meshd.kubo import policy
from meshd.kubo.rpc import Kubo
from meshd.supervise import sockets
from meshd.supervise.child import Launch
from meshd.supervise.engine import check_version, find_engine, gone, restore, run_once

SUPPORTED = ("0.43.",)
REPO_VERSION = "18"  # of the supported versions: `ipfs version --repo`
_READY_S = 60.0
_MIGRATED_S = 6 * 3600.0  # a large repository is rewritten block by block, on the slow disk of a small board
_MEMORY_SHARE = 0.25  # of the machine's memory
# On a private swarm nothing is announced on purpose, and kubo advises against that at each start (seen of 0.43.0). It
# must not mislead a person who looks for a fault in the journal.
_MISLEADING = re.compile(
    r"Provide and Reprovide systems are disabled|announced to Amino DHT|profile apply announce-on"
)
_PROFILES = "autoconf-off,unixfs-v1-2025"


class KuboProgram:
    """kubo as supervise.Program. Set `place` and `swarm_key` before each start."""

    name = "kubo"
    stop_grace = 25.0

    def __init__(self, repo: Path, rpc: Kubo, engines: Path | None, owner: Path) -> None:
        self.repo = repo
        self.rpc = rpc
        self.place: policy.KuboEndpoint | None = None
        self.swarm_key: str | Path = ""  # its text, or a file in memory (tmpfs) to link to
        self.version = ""
        self.ready_timeout = _READY_S
        self.migrating = ""  # "17 to 18" while it brings an older repository up to date
        self._engines = engines
        self._owner = owner
        self._binary: Path | None = None

    def _env(self) -> dict[str, str]:
        return {
            **policy.ENVIRONMENT,
            "IPFS_PATH": str(self.repo),
            "HOME": str(self.repo),
            "PATH": "/usr/bin:/bin",
            "GOLOG_LOG_LEVEL": "error",
            "GOMEMLIMIT": memory.bound_for(_MEMORY_SHARE),
        }

    async def find(self) -> Path:
        """The binary's path. Checks its version the first time."""
        if self._binary is None:
            binary = find_engine("ipfs", self._engines)
            version = (await run_once([str(binary), "version", "--number"], self._env())).split()[-1]
            check_version("kubo", version, SUPPORTED)
            self._binary, self.version = binary, version
        return self._binary

    async def create(self) -> str:
        """Make the repository where there is none; return kubo's peer id."""
        binary = await self.find()
        if not (self.repo / "config").exists():
            files.private_directory(self.repo)
            await run_once([str(binary), "init", "--empty-repo", f"--profile={_PROFILES}"], self._env())
        return str(self._config()["Identity"]["PeerID"])

    def _config(self) -> dict[str, Any]:
        path = self.repo / "config"
        try:
            config = files.read_json(path)
        except FileNotFoundError:
            raise gone(path) from None
        if not isinstance(config, dict) or "Identity" not in config:
            raise MeshError(Code.BAD_STATE, f"cannot use {path}", "it is not a config of kubo", restore(path))
        return config

    async def prepare(self) -> Launch:
        """See supervise.Program."""
        if self.place is None:
            raise MeshError(Code.NO_OVERLAY, "cannot start kubo", "there is no overlay address")
        binary = await self.find()
        self._look_for_migration()
        config = self._config()  # never created here: a new identity would be a stranger to the mesh
        sockets.check_free(self.place.address, self.place.port, "kubo's swarm")
        wanted = policy.apply(config, self.place)
        if wanted != config:
            files.write_durably(self.repo / "config", json.dumps(wanted, indent=2))
        if isinstance(self.swarm_key, Path):
            self.link_swarm_key(self.swarm_key)
        else:
            files.write_durably(self.repo / "swarm.key", self.swarm_key)
        self.place.rpc_socket.unlink(missing_ok=True)  # after kill -9 kubo does not start over its old socket
        await self.rpc.close()
        argv = (str(binary), "daemon", "--migrate=true", "--enable-gc=false")
        return Launch(argv, self._env(), self._owner, unsaid=_MISLEADING)

    def link_swarm_key(self, target: Path) -> None:
        """Replace the swarm key by a link to `target`, where no disk may have it. Blocks. Raises OSError."""
        files.link_durably(self.repo / "swarm.key", target)
        files.remove_unfinished(self.repo / "swarm.key")

    def _look_for_migration(self) -> None:
        try:
            found = (self.repo / "version").read_text().strip()
        except OSError:
            found = REPO_VERSION  # kubo's own start reports what is wrong with it
        self.migrating = f"{found} to {REPO_VERSION}" if found != REPO_VERSION else ""
        self.ready_timeout = _MIGRATED_S if self.migrating else _READY_S

    async def is_ready(self) -> bool:
        """Readiness: it answers with this repository's identity, and has the block that it cannot get from others."""
        if self.place is None or not self.place.rpc_socket.exists():
            return False
        if (await self.rpc.id())["ID"] != self._config()["Identity"]["PeerID"]:
            return False
        await self.rpc.keep_empty_block()
        self.migrating = ""
        return True

    async def ask(self) -> None:
        """See supervise.Program."""
        await self.rpc.version()
