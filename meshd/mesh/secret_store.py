"""The store of the mesh's secrets: plain files of this node, or credentials that are handed over, and in no file.

systemd hands them over, or anything else that fills a folder and names it, such as a container with a mounted Secret.
A unit's credentials are in memory that is never swapped, in $CREDENTIALS_DIRECTORY, for that unit alone
(systemd.exec(5)). Two pairs are used: `swarm.key` and `cluster.secret`, from whatever the machine's owner has systemd
load; and the same names after `encrypted.`, which systemd decrypts from two files that `meshd encrypt-secrets` made in
the state folder.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from meshd import files, wire
from meshd.errors import Code, MeshError
from meshd.mesh.secrets import CLUSTER_SECRET, NAMES, SWARM_KEY, Secrets, unusable

PREFIX = "encrypted."
SUFFIX = ".encrypted"
_RUN = "/run"  # credentials of the system's services are below it
# The first 16 bytes of an encrypted credential identify its keys (systemd's src/shared/creds-util.h; the first of each
# kind was seen of systemd-creds 252). What is not here, as a key of no length, counts as unencrypted.
_KEYS = {
    "5a1c6a86df9d4096b1d5a65e0862f19a": "host",
    "55b9ed1d38594d43a8319d2ebb332ac6": "host",
    "0c7cc07b117645919c4b0bea08bc20fe": "tpm2",
    "faf7eb9341e3412ca1a436f95a29362f": "tpm2",
    "93a894094874449090caf2fc93cab553": "host+tpm2",
    "ef4ac13679a9480ea7db68897f9f165d": "host+tpm2",
    "af4950a849134eb1a73846304ff30c05": "host+tpm2",
    "adbc4ca3efb64201ba881b6f2e4095ea": "host+tpm2",
}
_LOG = structlog.get_logger(part="secrets")


def encrypted_file(state: Path, name: str) -> Path:
    """The path of a secret's encrypted copy. name: one of NAMES."""
    return state / "secrets" / f"{name}{SUFFIX}"


def all_encrypted(state: Path) -> bool:
    """Whether each of the secrets has an encrypted copy. Blocks."""
    return all(encrypted_file(state, name).exists() for name in NAMES)


def remove_encrypted(state: Path) -> None:
    """Remove the encrypted copies, durably. Blocks. Raises OSError."""
    for name in NAMES:
        encrypted_file(state, name).unlink(missing_ok=True)
    if (state / "secrets").is_dir():
        files.sync_directory(state / "secrets")


def key_of(raw: bytes) -> str:
    """The key that an encrypted credential needs: "host", "tpm2", "host+tpm2"; "" for an unknown one."""
    try:
        return _KEYS.get(base64.b64decode(raw, validate=False)[:16].hex(), "")
    except ValueError:
        return ""


class SecretStore:
    """The secrets of one node. Every method blocks.

    state: its folder. private: the folder for the cluster's settings where no disk may have them. environment: as
    os.environ.get.
    """

    def __init__(
        self, state: Path, private: Path, environment: Callable[[str], str | None] = os.environ.get
    ) -> None:
        self._state = state
        self._private = private
        folder = environment("CREDENTIALS_DIRECTORY")
        self._credentials = Path(folder) if folder else None
        self._by_systemd = bool(folder) and _is_systemds(Path(folder or ""), environment)

    def load(self) -> Secrets:
        """Load the mesh's secrets. Raises MeshError BAD_STATE that names what cannot be used."""
        if self._plain():
            return Secrets.load(self._state)
        if handed := self._handed():
            return self._read(handed)
        if all_encrypted(self._state):
            raise _not_decrypted(self._state)
        return Secrets.load(self._state)  # its error says what is missing

    def founding(self) -> Secrets:
        """Secrets for a new mesh: those that the owner hands over, else new ones. Raises MeshError BAD_STATE."""
        return self._read(SWARM_KEY) if self._has(SWARM_KEY) else Secrets.generate()

    def save(self, secrets: Secrets) -> None:
        """Save the secrets of a mesh that this node joins or founds. Writes nothing where the owner hands them over.

        Raises MeshError BAD_STATE where the owner hands over another mesh's, and OSError.
        """
        if not self._has(SWARM_KEY):
            remove_encrypted(self._state)  # of a mesh that was left, where the leave was interrupted
            secrets.save(self._state)
        elif not _same(self._read(SWARM_KEY), secrets):
            raise self._another_mesh(SWARM_KEY)
        else:  # files of an interrupted leave or join would take precedence over what is handed over
            Secrets.erase(self._state)
            remove_encrypted(self._state)

    def settle(self, digest: str, engines: Callable[[], None]) -> None:
        """Check that what is handed over belongs to the mesh, and then remove the plain files.

        digest: of the mesh's secrets, "" where unknown. engines: does the same for kubo's and the cluster's files; it
        runs first, so that an interrupted one is repeated. Raises MeshError BAD_STATE for another mesh's secrets, and
        OSError.
        """
        handed = self._handed()
        if not handed:
            return
        secrets = self._read(handed)
        known = digest or (Secrets.load(self._state).digest() if self._plain() else secrets.digest())
        if not hmac.compare_digest(secrets.digest(), known):
            raise self._another_mesh(handed)
        engines()
        if any((self._state / "secrets" / name).exists() for name in NAMES):
            _LOG.info("the mesh's secrets are handed over: the plain files go")
        Secrets.erase(self._state)

    def another_mesh(self) -> MeshError:
        """The error for secrets of `load` that are not this mesh's."""
        handed = self._handed()
        if handed and not self._plain():
            return self._another_mesh(handed)
        path = self._state / "secrets" / SWARM_KEY
        return unusable(path, "it, or cluster.secret beside it, is another mesh's")

    def erase(self) -> None:
        """Remove the secrets of a node that leaves. What the machine's owner hands over stays."""
        Secrets.erase(self._state)
        remove_encrypted(self._state)
        (self._private / "service.json").unlink(missing_ok=True)

    def in_memory(self) -> bool:
        """Whether no disk may have the secrets, as they are handed over."""
        return not self._plain() and bool(self._handed())

    def handed_over(self) -> Path:
        """The file of the swarm key that is handed over. Raises MeshError BAD_STATE where none is."""
        handed = self._handed()
        if self._credentials is None or not handed:
            raise _not_decrypted(self._state)
        return self._credentials / handed

    def swarm_key(self) -> str | Path:
        """The content of kubo's swarm.key: its text, or the file in memory to link to."""
        return self.handed_over() if self.in_memory() else self.load().swarm_key

    def at_rest(self) -> wire.SecretsAtRest:
        """The state of the secrets at rest. Only with a key in a TPM do they count as encrypted."""
        if not self._off_the_disk():
            return wire.SecretsAtRest(kept="files", key="", encrypted=False)
        if self._handed() == SWARM_KEY:
            by: Literal["systemd", "environment"] = "systemd" if self._by_systemd else "environment"
            return wire.SecretsAtRest(kept="credentials", key="", encrypted=False, by=by)
        keys = {key_of(encrypted_file(self._state, name).read_bytes()) for name in NAMES}
        key = keys.pop() if len(keys) == 1 else ""
        return wire.SecretsAtRest(kept="encrypted", key=key, encrypted="tpm2" in key)

    # -- what is there ---------------------------------------------------------------------------------------------

    def _plain(self) -> bool:
        """Whether plain files count. A single one is the rest of an interrupted save or removal."""
        return all((self._state / "secrets" / name).exists() for name in NAMES)

    def _off_the_disk(self) -> bool:
        """Whether no file on a disk has a secret in it, the engines' own included."""
        kubos = self._state / "kubo" / "swarm.key"
        in_a_file = kubos.exists() and not kubos.is_symlink()
        return self.in_memory() and files.in_memory(self._private) and not in_a_file

    def _handed(self) -> str:
        """The swarm key's name among the credentials; "" where none are handed over that are this mesh's.

        The encrypted ones count while their files are there: `leave` removes those, and the unit goes on having them.
        """
        if all_encrypted(self._state) and self._has(PREFIX + SWARM_KEY):
            return PREFIX + SWARM_KEY
        return SWARM_KEY if self._has(SWARM_KEY) else ""

    def _has(self, name: str) -> bool:
        """Whether that credential is handed over. The unit hands over an empty one where there is none."""
        if self._credentials is None:
            return False
        try:
            return bool((self._credentials / name).read_bytes().strip())
        except FileNotFoundError:
            return False

    def _read(self, swarm_key: str) -> Secrets:
        assert self._credentials is not None  # noqa: S101 - the caller has found something there
        cluster_secret = swarm_key.replace(SWARM_KEY, CLUSTER_SECRET)
        try:
            return Secrets.read(self._credentials / swarm_key, self._credentials / cluster_secret)
        except MeshError as exc:
            raise MeshError(Code.BAD_STATE, exc.title, exc.detail, self._where(swarm_key)) from None

    def _another_mesh(self, swarm_key: str) -> MeshError:
        assert self._credentials is not None  # noqa: S101 - as above
        return MeshError(
            Code.BAD_STATE,
            f"cannot use {self._credentials / swarm_key}",
            "it, or the cluster's secret beside it, is another mesh's",
            self._where(swarm_key),
        )

    def _where(self, swarm_key: str) -> str:
        if swarm_key.startswith(PREFIX):
            return "sudo meshd decrypt-secrets"
        if not self._by_systemd:
            return f"see who fills that folder (CREDENTIALS_DIRECTORY), and mend what is in it: ls -l {self._credentials}"
        return (
            f"see which lines hand them over, and mend what they name: systemctl cat meshd | grep {SWARM_KEY}"
        )


def _same(one: Secrets, other: Secrets) -> bool:
    return hmac.compare_digest(one.digest(), other.digest())


def _is_systemds(folder: Path, environment: Callable[[str], str | None]) -> bool:
    """Whether systemd made that folder for this unit: systemd.exec(5).

    A container's may have the same path, but there is no invocation of a unit in it.
    """
    runtime = (_RUN, environment("XDG_RUNTIME_DIR") or _RUN)
    return bool(environment("INVOCATION_ID")) and folder.parent in {Path(at, "credentials") for at in runtime}


def _not_decrypted(state: Path) -> MeshError:
    return MeshError(
        Code.BAD_STATE,
        f"cannot use {encrypted_file(state, SWARM_KEY)}",
        "systemd was not told to decrypt it for meshd",
        "sudo meshd encrypt-secrets tells it; sudo meshd decrypt-secrets makes plain files of it",
    )
