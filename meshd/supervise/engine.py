"""An engine as a program on the disk: where it is, its version, a short command of it, and its lost files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from meshd.errors import Code, MeshError


def find_engine(name: str, folder: Path | None) -> Path:
    """The program's absolute path, in `folder` or on PATH. Raises MeshError ENGINE_MISSING."""
    found = shutil.which(name, path=str(folder) if folder else None)
    if found is None and folder is not None and os.path.lexists(folder / name):
        path = folder / name
        raise MeshError(
            Code.ENGINE_MISSING,
            f"cannot run {name}",
            f"{path} is there, and the user that meshd runs as may not run it",
            f"see which folder or file forbids it: namei -l {path.resolve()}",
        )
    if found is None:
        where = f"in {folder}" if folder else "on PATH"
        raise MeshError(
            Code.ENGINE_MISSING,
            f"cannot find {name}",
            f"it is not {where}",
            "install it, or name its folder in [paths] engines of the configuration; from a checkout: make setup",
        )
    return Path(found).resolve()


async def run_once(argv: list[str], env: dict[str, str], *, timeout: float = 60.0) -> str:
    """Run a short command to its end and return its output. Raises MeshError ENGINE_FAILED with that output."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has exited, and asyncio has not noticed yet
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
        raise
    text = output.decode(errors="replace").strip()
    if process.returncode != 0:
        raise MeshError(Code.ENGINE_FAILED, f"cannot run {Path(argv[0]).name} {argv[1]}", text[-2000:])
    return text


def check_version(name: str, found: str, supported: tuple[str, ...]) -> None:
    """Check a version against the supported prefixes. Raises MeshError ENGINE_MISSING where none fits."""
    if not found.startswith(supported):
        raise MeshError(
            Code.ENGINE_MISSING,
            f"cannot use {name} {found}",
            f"meshd is made for {' or '.join(s + 'x' if s.endswith('.') else s for s in supported)}",
            "install that version, or name its folder in [paths] engines of the configuration; from a checkout: make setup",
        )


def gone(path: Path) -> MeshError:
    """The error for a file that an engine cannot do without and that is missing."""
    return MeshError(Code.BAD_STATE, f"cannot use {path}", "the file is missing", restore(path))


def restore(path: Path) -> str:
    """The hint for a lost file of an engine in the state folder."""
    folder = path.parent.parent
    return (
        f"restore {folder} as a whole from a backup; or begin anew: meshctl leave --force, then meshctl join"
    )
