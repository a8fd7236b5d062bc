"""`systemctl` and `systemd-creds` where no systemd runs: `python systemd_stand_in.py NAME FOLDER ARGUMENT...`.

In FOLDER: `active` while the unit runs, `broken` where its start fails with them,
`dead` where it fails in any case, `user` as whom it runs where not as the owner of the state, `late` where meshd settles only when it is stopped,
`calls` what was asked. A start does what systemd and
meshd do: what the drop-in names is decrypted and handed over, and meshd settles it. tests/system has the real ones.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

HOST = bytes.fromhex("5a1c6a86df9d4096b1d5a65e0862f19a")


def nothing_else() -> None:
    """There is no engine."""


def start(folder: Path) -> None:
    hand_over(folder)
    settle(folder)


def hand_over(folder: Path) -> None:
    # Imported here, as the other calls of a test are many and need none of it.
    from meshd.mesh.secret_store import PREFIX, encrypted_file
    from meshd.mesh.secrets import NAMES

    state, handed = folder / "state", folder / "credentials"
    handed.mkdir(exist_ok=True)
    told = (folder / "drop-in").exists()
    for name in NAMES:
        encrypted = encrypted_file(state, name)
        text = opened(encrypted.read_bytes(), f"{PREFIX}{name}") if told and encrypted.exists() else b"\n"
        assert text is not None, "systemd does not start a unit whose credential has another name"
        (handed / f"{PREFIX}{name}").write_bytes(text)


def opened(made: bytes, name: str) -> bytes | None:
    """What is in it; None where it was encrypted under another name."""
    inside, _, text = base64.b64decode(made)[16:].partition(b"\0")
    return text if inside.decode() == name else None


def settle(folder: Path) -> None:
    from meshd.mesh.secret_store import SecretStore

    state, handed = folder / "state", folder / "credentials"
    store = SecretStore(state, folder / "run", {"CREDENTIALS_DIRECTORY": str(handed)}.get)
    store.settle((folder / "digest").read_text(), nothing_else)
    store.load()


def systemctl(folder: Path, arguments: list[str]) -> int:
    with (folder / "calls").open("a") as calls:
        calls.write(f"{arguments[0]}\n")
    match arguments:
        case ["show", "-P", "LoadState", _]:
            sys.stdout.write("loaded\n")
        case ["show", "-P", "User", _]:
            user = folder / "user"
            sys.stdout.write(user.read_text() if user.exists() else f"{(folder / 'state').stat().st_uid}\n")
        case ["show", "-P", "ActiveState", _]:
            sys.stdout.write("active\n" if (folder / "active").exists() else "inactive\n")
        case ["restart", _]:
            # It may have got as far as meshd before the job failed, or get there later.
            if (folder / "late").exists():
                hand_over(folder)
            else:
                start(folder)
            broken = (folder / "broken").exists() and (folder / "drop-in").exists()
            if broken or (folder / "dead").exists():
                sys.stderr.write("Job for meshd.service failed.\n")
                return 1
        case ["stop", _] if (folder / "late").exists():
            settle(folder)
            (folder / "late").unlink()
    return 0


def creds(folder: Path, arguments: list[str]) -> int:
    fed = sys.stdin.buffer.read()
    if (folder / "no-key").exists():
        sys.stderr.write("Failed to determine local credential key: No such file\n")
        return 1
    (name,) = (word.removeprefix("--name=") for word in arguments if word.startswith("--name="))
    made = (
        base64.b64encode(HOST + name.encode() + b"\0" + fed) if "encrypt" in arguments else opened(fed, name)
    )
    if made is None:
        sys.stderr.write("Embedded credential name does not match\n")
        return 1
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    program = systemctl if sys.argv[1] == "systemctl" else creds
    sys.exit(program(Path(sys.argv[2]), sys.argv[3:]))
