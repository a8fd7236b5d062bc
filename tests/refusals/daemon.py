"""Typing `meshd run` where it cannot start, as root and as another user, and what it says to people."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.nodes import BIN, Answer, Node, environment

OTHER = 65534  # the user nobody
RUN_S = 30.0


def meshd_run(config: Path, *, user: int | None = None, **env: str) -> Answer:
    """`meshd run --config FILE` to its end; `err` without what it logs. user: uid and gid, without other groups."""
    rights = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [BIN / "meshd", "run", "--config", config],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        env=environment(**env),
        cwd="/",
        **rights,  # type: ignore[call-overload]  # mypy cannot follow the names
    )
    said = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("{")]
    return Answer(done.returncode, done.stdout, "".join(said))


def refused(title: str, cause: str, hint: str) -> str:
    """What a refusal looks like on standard error."""
    return f"meshd: {title}\n  {cause}\n  try: {hint}\n"


@functools.cache
def _why_not_as_another() -> str:
    if os.geteuid() != 0:
        return "only root may run a program as another user"
    try:
        done = subprocess.run(
            [BIN / "meshd", "--version"],
            user=OTHER,
            group=OTHER,
            extra_groups=[],
            capture_output=True,
            timeout=30,
        )
    except PermissionError as exc:
        return f"another user cannot run this checkout's Python: {exc}"
    return "" if done.returncode == 0 else f"another user cannot run this checkout's meshd: {done.stderr!r}"


def needs_another_user() -> None:
    """Skip where no program can be run as another user. Root's rights would hide what a mode forbids."""
    if why := _why_not_as_another():
        pytest.skip(why)


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files, by their path in the folder; but for the locks, what meshd writes and removes at any
    time to see whether it can, and the record of what was tried."""
    passing = re.compile(
        r"\.*writable(\.\d+\.[0-9a-f]+\.tmp)?|lock|repo\.lock|cluster\.lock|LOCK|operations\.db(-wal)?"
    )
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if not passing.fullmatch(path.name) and path.is_file()
    }


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A filesystem in memory, mounted there meanwhile. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    subprocess.run(argv, check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def fill(folder: Path, *, leave: int) -> Path:
    """A file that takes all room there but `leave` pages."""
    free = os.statvfs(folder)
    path = folder / "fill"
    path.write_bytes(b"\0" * (free.f_bfree - leave) * free.f_frsize)
    return path


def put_config(node: Node, old: object, new: object) -> None:
    """Change one value in the node's configuration file."""
    text = node.config.read_text()
    assert str(old) in text
    node.config.write_text(text.replace(str(old), str(new)))
