"""Fixtures: a meshctl to run, a fake meshd that answers it, and a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.meshctl.fake_meshd import FakeMeshd, serve

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
NOBODY = 65534
BIG = 64 << 20


@dataclass(frozen=True)
class Result:
    """The outcome of a run: its output and exit code."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """stdout as JSON documents, one a line; any other line fails the test."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Running:
    """A running meshctl."""

    process: asyncio.subprocess.Process

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def result(self, stdin: bytes | None = None) -> Result:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await self.process.communicate(stdin)
        assert self.process.returncode is not None
        text = Result(self.process.returncode, (out or b"").decode(), (err or b"").decode())
        assert "Traceback" not in text.err
        return text


class Meshctl:
    """Runs `python -m meshctl` as a person would, in a folder of its own."""

    def __init__(self, cwd: Path, socket: Path) -> None:
        self.cwd = cwd
        self.prefix: list[str] = []
        self._started: list[Running] = []
        self.env = {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "MESHD_SOCKET": str(socket),
        }

    async def start(self, *args: str | bytes | Path, **options: Any) -> Running:
        pipes: dict[str, Any] = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        chosen: dict[str, Any] = {"cwd": self.cwd, "env": self.env} | pipes | options
        command = [*self.prefix, sys.executable, "-m", "meshctl", *args]
        running = Running(await asyncio.create_subprocess_exec(*command, **chosen))
        self._started.append(running)
        return running

    async def __call__(self, *args: str | bytes | Path, stdin: bytes | None = None, **options: Any) -> Result:
        if stdin is not None:
            options["stdin"] = asyncio.subprocess.PIPE
        running = await self.start(*args, **options)
        return await running.result(stdin)

    async def python(self, *args: str) -> Result:
        """Runs Python itself, where a test looks at how meshctl runs."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *args),
            cwd=self.cwd,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._started.append(Running(process))
        return await self._started[-1].result()

    async def end(self) -> None:
        """End what a failed test left running."""
        for running in self._started:
            if running.process.returncode is None:
                running.process.kill()
                await running.process.communicate()


class Terminal:
    """A pseudo-terminal: shows what meshctl writes, and sends what is typed."""

    def __init__(self) -> None:
        self._person, self.device = pty.openpty()
        os.set_blocking(self._person, False)
        self.seen = ""
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._person, self._read)

    def _read(self) -> None:
        try:
            self.seen += os.read(self._person, 1 << 16).decode(errors="replace")
        except OSError:  # the last program that had it open is gone
            asyncio.get_running_loop().remove_reader(self._person)
        self._more.set()

    def type(self, text: str) -> None:
        os.write(self._person, text.encode())

    async def shows(self, pattern: str) -> str:
        """Wait until the terminal shows it."""
        async with asyncio.timeout(TIMEOUT_S):
            while not (found := re.search(pattern, self.seen)):
                self._more.clear()
                await self._more.wait()
        return found.group()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._person)
        os.close(self._person)
        os.close(self.device)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket's path must be short, which pytest's folders are not."""
    path = Path(tempfile.mkdtemp(prefix="meshctl-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def meshd(short_folder: Path) -> AsyncIterator[FakeMeshd]:
    fake = FakeMeshd(short_folder / "meshd.sock")
    runner = await serve(fake)
    yield fake
    await runner.cleanup()


@pytest.fixture
async def meshctl(tmp_path: Path, short_folder: Path) -> AsyncIterator[Meshctl]:
    """A meshctl that uses the socket of the `meshd` fixture, if the test has one."""
    here = tmp_path / "here"
    here.mkdir()
    made = Meshctl(here, short_folder / "meshd.sock")
    yield made
    await made.end()


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def obeying(meshctl: Meshctl) -> None:
    """A meshctl that file modes bind: root runs it without the capabilities that override them."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root needs setpriv (util-linux) to give rights up")
        meshctl.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]


@pytest.fixture
def as_someone(meshctl: Meshctl) -> dict[str, Any]:
    """Options of a run as a user other than root: nobody, where we are root."""
    if os.geteuid() != 0:
        return {}
    if not all(_passable(folder) for folder in (ROOT, Path(sys.executable).resolve(), Path(sys.prefix))):
        pytest.skip("nobody may not run this Python")
    return {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}


def _passable(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


Writer = Callable[[str, bytes], Path]


@pytest.fixture
def write(meshctl: Meshctl) -> Writer:
    """Write a file where meshctl runs."""

    def write_file(name: str, content: bytes) -> Path:
        path = meshctl.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file


@pytest.fixture
def big(write: Writer) -> Path:
    """A sparse file, far larger than a socket's buffer."""
    path = write("big", b"")
    os.truncate(path, BIG)
    return path
