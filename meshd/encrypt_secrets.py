"""`meshd encrypt-secrets` and `decrypt-secrets`: encryption at rest of the mesh's secrets. For root, by systemd-creds.

The key is systemd's, in a TPM or in a file that only root reads. meshd, which is not root, never has it: systemd
decrypts the two files when it starts the unit, and hands over their content (LoadCredentialEncrypted=,
systemd.exec(5)). meshd removes the plain files once systemd has handed it the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from meshd import files
from meshd.errors import Code, MeshError
from meshd.mesh.secret_store import PREFIX, all_encrypted, encrypted_file, key_of, remove_encrypted
from meshd.mesh.secrets import CLUSTER_SECRET, NAMES, SWARM_KEY, Secrets

UNIT = "meshd.service"
BOOTED = Path("/run/systemd/system")  # exists where systemd runs the machine, see sd_booted(3)
DROP_IN = Path("/etc/systemd/system/meshd.service.d/secrets.conf")
# The PCR for tests, which nothing measures into. Others change with an update of the firmware, and then the node would not
# start any more; and with none at all systemd 252 makes what it cannot decrypt (measured).
_PCR = 16
_RUNS = ("active", "activating", "reloading")
_LOST = (
    "where the key is lost (another board, another disk), copy swarm.key and cluster.secret from {folder} of another"
    " member to {folder}, and type it again"
)

_ENCRYPT, _DECRYPT = "cannot encrypt the secrets", "cannot decrypt the secrets"
_LEAVE = "leave them in plain files"

Say = Callable[[str], None]


def encrypt(state: Path, with_key: str, say: Say) -> None:
    """Encrypt the secrets, and check that meshd gets them from systemd; else roll back. Raises MeshError.

    with_key: as systemd-creds(1) takes it; auto is host+tpm2 where there is a TPM, else host.
    """
    owner = _begin(_ENCRYPT, "encrypt-secrets", state)
    with _one_at_a_time(_ENCRYPT, owner, state):
        plain = _plain(owner, state)
        told = DROP_IN.read_text() if DROP_IN.exists() else ""
        before = _encrypted_files(owner, state)
        if plain is not None:
            _see_whose(owner, state, plain, _ENCRYPT)
            _write_encrypted(owner, state, plain, with_key)
        elif _encrypted(owner, state):
            _same_key(_key(owner, state), with_key)
            if told == _drop_in(state):
                say(f"nothing was changed: {_about(_key(owner, state), state)}")
                return
        else:
            raise MeshError(
                Code.NO_MESH,
                _ENCRYPT,
                f"there are none in {state / 'secrets'}: this node is in no mesh, or systemd hands them over already",
                "meshctl status",
            )
        _tell(_drop_in(state))
        if not _running():
            say("encrypted; the plain files go when meshd is started: sudo systemctl start meshd")
            return
        say("restarting meshd")
        try:
            _restart()
            if _plain(owner, state) is not None:
                raise MeshError(Code.BAD_STATE, _ENCRYPT, "meshd did not take them from systemd")
        except MeshError as exc:
            runs = _take_back(owner, state, plain, before, told)
            now = "all is as it was" if runs else "its files are as they were, and it does not run now"
            why = f"meshd did not start with them, and {now} ({exc.detail})"
            raise MeshError(exc.code, _ENCRYPT, why, "see what it says: journalctl -u meshd -n 30") from exc
    say(_about(_key(owner, state), state))


def decrypt(state: Path, say: Say) -> None:
    """Make plain files of the secrets again. Interrupted anywhere, it can be repeated. Raises MeshError."""
    owner = _begin(_DECRYPT, "decrypt-secrets", state)
    with _one_at_a_time(_DECRYPT, owner, state):
        if not _encrypted(owner, state):
            say(f"the secrets are not encrypted by meshd; nothing was changed in {state / 'secrets'}")
            return
        plain = _plain(owner, state)
        if plain is None:
            texts = [_decrypted(_read(owner, encrypted_file(state, name)), name, state) for name in NAMES]
            plain = _secrets(texts[0], texts[1], state)
        _see_whose(owner, state, plain, _DECRYPT)
        told = DROP_IN.read_text() if DROP_IN.exists() else ""
        _tell("")  # before there are plain files: meshd would remove them at a start
        try:
            _save(owner, state, plain)
        except OSError:
            _tell(told)
            raise
        if _running():
            say("restarting meshd")
            try:
                _restart()
            except MeshError as exc:
                cause = f"meshd does not start ({exc.detail}); plain files are there now, beside the encrypted ones"
                hint = "journalctl -u meshd -n 30; once it starts: sudo meshd decrypt-secrets, once more"
                raise MeshError(exc.code, _DECRYPT, cause, hint) from exc
        if _plain(owner, state) != plain:
            cause = f"what was written to {state / 'secrets'} is not there any more"
            raise MeshError(Code.BAD_STATE, _DECRYPT, cause, "sudo meshd decrypt-secrets, once more")
        _remove_encrypted(owner, state)
    say(f"the secrets are in plain files again, in {state / 'secrets'}, which only meshd may read")


# -- the steps -----------------------------------------------------------------------------------------------------


def _begin(title: str, verb: str, state: Path) -> os.stat_result:
    """Check that it can be done here; the stat of the state folder, for its owner. Raises MeshError."""
    if os.geteuid() != 0:
        raise MeshError(Code.DENIED, title, "only root can have systemd do that", f"sudo meshd {verb}")
    if not BOOTED.is_dir() or shutil.which("systemctl") is None:
        raise MeshError(Code.BAD_REQUEST, title, "systemd does not run on this machine", _LEAVE)
    if shutil.which("systemd-creds") is None:
        cause = "systemd-creds is not installed; it came with systemd 250"
        raise MeshError(Code.BAD_REQUEST, title, cause, f"{_LEAVE}, or upgrade the machine")
    if _systemctl("show", "-P", "LoadState", UNIT) != "loaded":
        cause = f"systemd knows no {UNIT}, and it is that which it would hand them to"
        raise MeshError(Code.BAD_REQUEST, title, cause, "install meshd's package")
    try:
        owner = state.stat()
    except OSError as exc:
        raise files.unusable(exc, title) from exc
    runs_as = _systemctl("show", "-P", "User", UNIT) or "root"
    if runs_as not in (_name(owner.st_uid), str(owner.st_uid)):
        cause = f"{state} belongs to {_name(owner.st_uid)}, and {UNIT} runs as {runs_as}: it is not the folder of that service"
        raise MeshError(Code.BAD_REQUEST, title, cause, f"sudo meshd {verb}, without --config")
    return owner


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def _as(owner: os.stat_result) -> Iterator[None]:
    """Act as the state folder's owner: a program that took meshd over may have put links there for root to follow."""
    groups = os.getgroups()
    try:
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextlib.contextmanager
def _one_at_a_time(title: str, owner: os.stat_result, state: Path) -> Iterator[None]:
    """Lock, so that one such command runs at a time. Raises MeshError with that title, also for an OSError inside."""
    folder = -1
    try:
        with _as(owner):
            folder = os.open(files.private_directory(state / "secrets"), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            cause, hint = (
                "the same, or its opposite, runs already",
                "wait for it to end, then: meshctl status",
            )
            raise MeshError(Code.BUSY, title, cause, hint) from None
        yield
    except OSError as exc:
        raise files.unusable(exc, title) from exc
    finally:
        if folder >= 0:
            os.close(folder)


def _plain(owner: os.stat_result, state: Path) -> Secrets | None:
    """The secrets in plain files. Where only one is left and both exist encrypted, an earlier run was interrupted."""
    with _as(owner):
        there = [name for name in NAMES if (state / "secrets" / name).exists()]
        whole = len(there) == len(NAMES) or (there and not all_encrypted(state))
        return Secrets.load(state) if whole else None


def _save(owner: os.stat_result, state: Path, plain: Secrets) -> None:
    with _as(owner):
        plain.save(state)


def _see_whose(owner: os.stat_result, state: Path, found: Secrets, title: str) -> None:
    """Check that the secrets are this node's mesh's: nothing may be given up for others. Raises MeshError."""
    with _as(owner):
        try:
            document = files.read_json(state / "mesh.json")
        except FileNotFoundError:
            return
    known = document.get("secrets") if isinstance(document, dict) else None
    if known and not hmac.compare_digest(str(known), found.digest()):
        cause = f"those in {state / 'secrets'} are another mesh's than the one that this node is in"
        hint = f"copy swarm.key and cluster.secret from {state / 'secrets'} of another member of this mesh to the same place"
        raise MeshError(Code.BAD_STATE, title, cause, hint)


def _encrypted_files(owner: os.stat_result, state: Path) -> dict[Path, bytes]:
    """The encrypted files that exist, with their content."""
    paths = [encrypted_file(state, name) for name in NAMES]
    with _as(owner):
        return {path: path.read_bytes() for path in paths if path.exists()}


def _remove_encrypted(owner: os.stat_result, state: Path) -> None:
    with _as(owner):
        remove_encrypted(state)


def _encrypted(owner: os.stat_result, state: Path) -> bool:
    with _as(owner):
        return all_encrypted(state)


def _key(owner: os.stat_result, state: Path) -> str:
    return key_of(_read(owner, encrypted_file(state, SWARM_KEY)))


def _read(owner: os.stat_result, path: Path) -> bytes:
    with _as(owner):
        return path.read_bytes()


def _write_encrypted(owner: os.stat_result, state: Path, plain: Secrets, with_key: str) -> None:
    encrypted = {}
    for name, text in ((SWARM_KEY, plain.swarm_key), (CLUSTER_SECRET, plain.cluster_secret + "\n")):
        how = [f"--name={PREFIX}{name}", f"--with-key={with_key}", f"--tpm2-pcrs={_PCR}"]
        hint = _not_with(with_key)
        made = _creds(_ENCRYPT, "encrypt", how, text.encode(), hint)
        if _creds(_ENCRYPT, "decrypt", how[:1], made, hint).decode(errors="replace") != text:
            cause = "what systemd-creds made of them cannot be read back"
            raise MeshError(Code.INTERNAL, _ENCRYPT, cause, _LEAVE)
        encrypted[encrypted_file(state, name)] = made
    with _as(owner):
        for path, made in encrypted.items():
            files.write_durably(path, made)


def _not_with(with_key: str) -> str:
    return (
        _LEAVE
        if with_key == "host"
        else f"without a TPM: sudo meshd encrypt-secrets --with-key host; or {_LEAVE}"
    )


def _same_key(key: str, wanted: str) -> None:
    if wanted not in ("auto", key):
        cause = (
            f"they are encrypted already, and with {'the key ' + key if key else 'a key that is not known'}"
        )
        hint = f"sudo meshd decrypt-secrets, then: sudo meshd encrypt-secrets --with-key {wanted}"
        raise MeshError(Code.BAD_REQUEST, f"cannot encrypt the secrets with the key {wanted}", cause, hint)


def _decrypted(raw: bytes, name: str, state: Path) -> str:
    hint = _LOST.format(folder=state / "secrets")
    how = [f"--name={PREFIX}{name}"]
    return _creds(_DECRYPT, "decrypt", how, raw, hint).decode(errors="replace")


def _secrets(swarm_key: str, cluster_secret: str, state: Path) -> Secrets:
    try:
        return Secrets(swarm_key, cluster_secret.strip())
    except ValueError as exc:
        raise MeshError(Code.BAD_STATE, _DECRYPT, str(exc), _LOST.format(folder=state / "secrets")) from None


def _take_back(
    owner: os.stat_result, state: Path, plain: Secrets | None, before: dict[Path, bytes], told: str
) -> bool:
    """Roll back the files and the unit's drop-in. Whether meshd runs then."""
    if plain is not None:
        _save(owner, state, plain)
    with contextlib.suppress(MeshError):  # the caller reports why it did not start
        _tell(told)
        if plain is not None:
            _systemctl("stop", UNIT)
            # One that began just now was handed them, and may have removed the files again before it ended.
            _save(owner, state, plain)
            _remove_encrypted(owner, state)
            with _as(owner):
                for path, made in before.items():
                    files.write_durably(path, made)
        _restart()
        return True
    return False


def _tell(drop_in: str) -> None:
    """Write the unit's drop-in, which says what systemd hands over from the next start on; "" removes it."""
    if drop_in:
        files.write_durably(_folder_of(DROP_IN), drop_in, mode=0o644)
    else:
        DROP_IN.unlink(missing_ok=True)
    _systemctl("daemon-reload")


def _folder_of(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    return path


def _drop_in(state: Path) -> str:
    lines = ["# Made by `meshd encrypt-secrets`; `meshd decrypt-secrets` removes it.", "[Service]"]
    for name in NAMES:
        path = str(encrypted_file(state, name)).replace("%", "%%")
        # An empty one where the file is missing, as after `meshctl leave`: else the unit would not start.
        lines += [f"SetCredential={PREFIX}{name}:\\n", f"LoadCredentialEncrypted={PREFIX}{name}:{path}"]
    return "\n".join(lines) + "\n"


def _about(key: str, state: Path) -> str:
    if "tpm2" in key:
        return (
            f"the secrets are encrypted by a key in this machine's TPM ({key}).\n"
            f"A copy of {state} is of no use without this machine: before you move its disk, type: sudo meshd decrypt-secrets"
        )
    if key == "host":
        return (
            "the secrets are locked by a key in /var/lib/systemd/credential.secret, which lies on a disk of this machine.\n"
            f"A copy of {state} alone does not give them away. Who has the whole disk has the key too, so status does not call"
            " them encrypted; that takes a TPM."
        )
    return (
        "the secrets are encrypted by a key that meshd does not know, so status does not call them encrypted"
    )


# -- systemd -------------------------------------------------------------------------------------------------------


def _running() -> bool:
    return _systemctl("show", "-P", "ActiveState", UNIT) in _RUNS


def _restart() -> None:
    """Restart the unit; return when meshd's socket answers."""
    _systemctl("reset-failed", UNIT)
    _systemctl("restart", UNIT)


def _systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MeshError(
            Code.ENGINE_FAILED,
            f"cannot {arguments[0]} {UNIT}",
            said[0] if said else f"systemctl ended with {done.returncode}",
            "systemctl status meshd",
        )
    return done.stdout.strip()


def _creds(title: str, verb: str, how: list[str], fed: bytes, hint: str) -> bytes:
    done = subprocess.run(
        ["systemd-creds", *how, verb, "-", "-"], input=fed, capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        cause = said[-1] if said else f"systemd-creds ended with {done.returncode}"
        raise MeshError(Code.ENGINE_FAILED, title, f"systemd-creds: {cause}", hint)
    return done.stdout
