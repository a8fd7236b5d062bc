"""Writes requirements/*.txt: the exact versions of everything, with the hashes of every file of a release.

One lock serves every CPython from 3.11 on and every Linux architecture. What is written names no registry, so the
same files work with whatever package index pip is configured for.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"

# The lock is for Linux alone (tool.uv in pyproject.toml), so this marker says nothing to anyone who reads it.
IMPLIED = "sys_platform == 'linux'"

HEAD = "# {what}\n# Made from pyproject.toml; to make it again, type: make lock\n"


class LockError(Exception):
    """A lock that cannot be made; the message says why and what to type."""


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a program, its standard output kept away (uv repeats the whole lock there)."""
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise LockError(
            f"cannot lock: {Path(command[0]).name} failed (above); check the network and the package index that "
            "pip is configured for, then type: make lock"
        )


def tool(folder: Path) -> Path:
    """Install uv, in the locked version when there is one, into an environment outside the checkout."""
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    locked = LOCKS / "lock.txt"
    run(*pip, *(["--require-hashes", "-r", locked] if locked.exists() else ["uv"]))
    return folder / "bin" / "uv"


def plain(text: str) -> str:
    """Drop the markers that always hold, and refuse a line that points at a registry."""
    lines = []
    for line in text.splitlines():
        if line.lstrip().startswith("-") and not line.lstrip().startswith("--hash="):
            raise LockError(
                f"cannot lock: uv wrote the option {line.split()[0]!r}; remove it, then type: make lock"
            )
        if "://" in line:
            raise LockError(
                "cannot lock: uv wrote an address; name packages by version only, then type: make lock"
            )
        name, mark, rest = line.partition(" ; ")
        if mark:
            marker = rest.removesuffix("\\").strip()
            kept = " and ".join(part for part in marker.split(" and ") if part != IMPLIED)
            line = f"{name} ; {kept} \\" if kept else f"{name} \\"
        lines.append(line)
    return "\n".join(lines) + "\n"


def lock(uv: Path, name: str, what: str, *options: str, upgrade: bool) -> None:
    """Resolve one set of requirements into requirements/<name>.txt, keeping versions that still serve."""
    target = LOCKS / f"{name}.txt"
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        if target.exists():
            draft.write_text(target.read_text())
        command: list[str | Path] = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
        ]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--output-file", draft]
        command += ["--upgrade"] if upgrade else []
        # A find-links folder of this user must not decide what everyone installs.
        env = {
            key: value for key, value in os.environ.items() if key not in {"PIP_FIND_LINKS", "UV_FIND_LINKS"}
        }
        run(*command, *options, env=env)
        text = HEAD.format(what=what) + plain(draft.read_text())
    target.write_text(text)
    print(f"lock: {target.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the locks in requirements/.")
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions instead of keeping the locked ones"
    )
    upgrade: bool = parser.parse_args().upgrade
    LOCKS.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="meshd-lock-") as folder:
            uv = tool(Path(folder) / "venv")
            lock(uv, "run", "What meshd runs with.", "pyproject.toml", upgrade=upgrade)
            # The other locks are held to the versions of this one, so that what is tested is what runs.
            held = ["--constraint", "requirements/run.txt"]
            systemd = ["--extra", "systemd"]
            lock(
                uv,
                "systemd",
                "The same, with the journal's fields.",
                "pyproject.toml",
                *systemd,
                *held,
                upgrade=upgrade,
            )
            groups = ["--group", "dev", "--group", "build"]
            lock(
                uv,
                "dev",
                "The same, and what tests and builds it.",
                "pyproject.toml",
                *groups,
                *held,
                upgrade=upgrade,
            )
            lock(uv, "lock", "What makes these files.", "--group", "lock", upgrade=upgrade)
    except LockError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
