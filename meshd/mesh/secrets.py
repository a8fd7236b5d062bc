"""The shared secrets of all members: kubo's swarm key and the cluster's secret."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from meshd import files
from meshd.errors import Code, MeshError

SWARM_KEY = "swarm.key"
CLUSTER_SECRET = "cluster.secret"  # noqa: S105 -- the name of a file
NAMES = (SWARM_KEY, CLUSTER_SECRET)
_SWARM_HEAD = "/key/swarm/psk/1.0.0/\n/base16/\n"  # kubo's own file format
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """swarm_key: the text of kubo's swarm.key file. cluster_secret: 64 hex digits. Neither shows in repr."""

    swarm_key: str = field(repr=False)
    cluster_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError, which never quotes the value."""
        head, tail = self.swarm_key[: len(_SWARM_HEAD)], self.swarm_key[len(_SWARM_HEAD) :]
        if head != _SWARM_HEAD or not tail.endswith("\n") or not _HEX.fullmatch(tail.removesuffix("\n")):
            raise ValueError("the swarm key is not in kubo's format")
        if not _HEX.fullmatch(self.cluster_secret):
            raise ValueError("the cluster secret is not 64 hex digits")

    def digest(self) -> str:
        """sha256 (hex), to detect another mesh's secrets. It reveals nothing of 512 random bits."""
        return hashlib.sha256(f"{self.swarm_key}{self.cluster_secret}".encode()).hexdigest()

    @classmethod
    def generate(cls) -> Secrets:
        """New secrets for a new mesh."""
        return cls(f"{_SWARM_HEAD}{secrets.token_hex(32)}\n", secrets.token_hex(32))

    @classmethod
    def load(cls, state: Path) -> Secrets:
        """Load from `state`/secrets. Blocks. Raises MeshError BAD_STATE that names the file."""
        return cls.read(state / "secrets" / SWARM_KEY, state / "secrets" / CLUSTER_SECRET)

    @classmethod
    def read(cls, swarm_key: Path, cluster_secret: Path) -> Secrets:
        """Load from two files. Blocks. Raises MeshError BAD_STATE that names the file."""
        key, secret = _text(swarm_key).rstrip("\n") + "\n", _text(cluster_secret).strip()
        if not _HEX.fullmatch(secret):
            raise unusable(cluster_secret, "the file is damaged (it is not 64 hex digits)")
        try:
            return cls(key, secret)
        except ValueError as exc:
            raise unusable(swarm_key, f"the file is damaged ({exc})") from None

    def save(self, state: Path) -> None:
        """Save to `state`/secrets (0700), files 0600. Blocks (fsync). Raises OSError."""
        files.private_directory(state)
        folder = files.private_directory(state / "secrets")
        files.sync_directory(state)
        files.write_durably(folder / SWARM_KEY, self.swarm_key)
        files.write_durably(folder / CLUSTER_SECRET, self.cluster_secret + "\n")

    @staticmethod
    def erase(state: Path) -> None:
        """Remove the files, when a node leaves. Blocks. Raises OSError."""
        folder = state / "secrets"
        if folder.is_dir():
            for name in NAMES:
                (folder / name).unlink(missing_ok=True)
                files.remove_unfinished(folder / name)
            files.sync_directory(folder)

    @staticmethod
    def swarm_key_file(state: Path) -> Path:
        """The path of the swarm key's file."""
        return state / "secrets" / SWARM_KEY


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise unusable(path, "the file is missing") from None
    except OSError as exc:
        raise unusable(path, exc.strerror or "it cannot be read") from None
    if not raw:
        raise unusable(path, "the file is empty")
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise unusable(path, "the file is damaged (it is not text)") from None


def unusable(path: Path, cause: str) -> MeshError:
    """The error for a file of the secrets that cannot be used."""
    folder = path.parent
    return MeshError(
        Code.BAD_STATE,
        f"cannot use {path}",
        cause,
        f"copy {SWARM_KEY} and {CLUSTER_SECRET} into {folder} from a backup, or from another member of the mesh; or move {folder.parent} away and join as"
        " a new node: on another member type meshctl forget NODE, then meshctl invite; here meshctl join",
    )
