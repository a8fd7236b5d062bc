"""One child process: spawn, output line by line, exit, stop. And the kill of all children as a last resort."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from meshd.supervise.cgroups import Cgroup

_LAUNCHER = Path(__file__).with_name("launch.py")
_LOOK_AGAIN_S = 0.02
KILLED_S = 5.0
"""Seconds from SIGKILL until a program is gone, unless it waits for a disk."""
_LONGEST_READ_S = 0.05  # before a flood of output gives way to the rest of the event loop
_LINE_LIMIT = 64 * 1024  # a longer line is handed on in pieces
_LOG = structlog.get_logger(part="supervise")
MARK = "MESHD_CHILD_OF"
"""Environment variable of every child: the path of its state folder, for people."""
IDENTITY = "MESHD_CHILD_ID"
"""Environment variable of every child: the `identity` of its state folder, by which a later run finds its orphans."""


def identity(folder: Path) -> str:
    """A folder's device and inode: unique on this machine at any time, whatever its path and container.

    Raises OSError.
    """
    status = folder.stat()
    return f"{status.st_dev}:{status.st_ino}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a program. argv[0] is an absolute path; env is the whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    owner: Path = Path("/")  # the state folder
    unsaid: re.Pattern[str] | None = None  # drops each line of output that it matches, anywhere in the line


class Child:
    """A running child. `ended` is set when the process has exited and its output is read to the end.

    With a cgroup, its descendants are killed when it has exited. Without one, a descendant that left its session lives
    on, and a stop waits for whatever holds the output open.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        on_line: Callable[[str], None],
        group: Cgroup | None = None,
        unsaid: re.Pattern[str] | None = None,
    ) -> None:
        self._process = process
        self._group = group
        self._unsaid = unsaid
        self._pidfd = _pidfd(process.pid)
        self._on_line = on_line
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=20)
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._pidfd is not None:
            _RUNNING[self.pid] = self
            self._loop.add_reader(self._pidfd, self._is_gone)
        else:
            self._end_others()
        self._reader = asyncio.create_task(self._read(), name=f"output-{process.pid}")

    @classmethod
    async def spawn(
        cls, launch: Launch, on_line: Callable[[str], None], group: Cgroup | None = None
    ) -> Child:
        """Start it in a session and a process group of its own.

        Call it from the main thread: PDEATHSIG fires when the *thread* that forked ends. group: its cgroup, made and
        empty. Raises OSError where Python itself cannot be started, or the state folder is gone.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(_LAUNCHER),
            str(os.getpid()),
            *((str(group.path),) if group is not None else ()),
            "--",
            *launch.argv,
            env={**launch.env, MARK: str(launch.owner), IDENTITY: identity(launch.owner)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_LIMIT,
            start_new_session=True,
        )
        try:
            return cls(process, on_line, group, launch.unsaid)
        except BaseException:  # too many open files: the child would run unsupervised
            process.kill()
            await process.wait()
            raise

    @property
    def exit_text(self) -> str:
        """Its exit status for a person: `exit 1` or `signal SIGKILL`; empty while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        if code >= 0:
            return f"exit {code}"
        return f"signal {signal.Signals(-code).name if -code in set(signal.Signals) else -code}"

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after `grace` seconds; return when it has exited.

        SIGCONT wakes a stopped child, so that it can handle the SIGTERM.
        """
        if grace > 0:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.ended.wait()
                    return
        self._signal(signal.SIGKILL)
        await self.ended.wait()

    def kill(self) -> None:
        """Send SIGKILL to it and its cgroup, without logging or waiting. Thread-safe."""
        self._signal(signal.SIGKILL)
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.kill(silently=True)

    @property
    def gone(self) -> bool:
        """Whether its process has exited, even where the event loop has not noticed yet. Thread-safe."""
        pidfd = self._pidfd
        if pidfd is None:
            return True
        poll = select.poll()  # select(2) takes no descriptor above 1023
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))  # true also where it was closed just now (POLLNVAL), as that means the same

    def _signal(self, number: signal.Signals) -> None:
        # Process.send_signal would poll first, and can take the exit status from asyncio's own watcher.
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # it is gone
                signal.pidfd_send_signal(self._pidfd, number)

    def _is_gone(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)  # it stays readable: the loop would call again and again
        self._end_others()

    def _end_others(self) -> None:
        """Kill its descendants. Do not wait for the end of its output: they may hold that open."""
        if self._group is not None:
            with contextlib.suppress(OSError):  # the next start reports what cannot be ended
                self._group.kill()

    def _hand_on(self, line: str) -> None:
        if not line or (self._unsaid and self._unsaid.search(line)):
            return
        self.last_lines.append(line)
        try:
            self._on_line(line)
        except Exception:  # noqa: BLE001 - a listener's failure must not end the reading
            _LOG.exception("cannot hand on what a program said", pid=self.pid)

    async def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - it was spawned with PIPE
        others_had_it = time.monotonic()
        try:
            while True:
                if time.monotonic() - others_had_it > _LONGEST_READ_S:
                    # readline() returns buffered lines without yielding to the loop, and there may be thousands.
                    await asyncio.sleep(0)
                    others_had_it = time.monotonic()
                try:
                    raw = await output.readuntil(b"\n")
                except asyncio.LimitOverrunError as exc:
                    raw = await output.readexactly(exc.consumed or _LINE_LIMIT)
                except asyncio.IncompleteReadError as exc:
                    raw = exc.partial
                    if not raw:
                        break
                self._hand_on(raw.decode(errors="replace").rstrip())
        except BaseException:  # nothing reads its output any more: it would block on its next line
            self.kill()
            raise
        finally:
            await self._process.wait()
            _RUNNING.pop(self.pid, None)
            if self._pidfd is not None:
                self._loop.remove_reader(self._pidfd)
                os.close(self._pidfd)
                self._pidfd = None
            self.ended.set()


_RUNNING: dict[int, Child] = {}  # every child of this process, by pid


def kill_all(seconds: float) -> list[int]:
    """Kill every child of this process, whichever object owns it; the pids of those that still run after `seconds`.

    Blocks until all are gone, or for that long. Thread-safe.
    """
    deadline = time.monotonic() + seconds
    for child in list(_RUNNING.values()):
        child.kill()
    while (left := running()) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
    return left


async def end_all(seconds: float) -> list[int]:
    """`kill_all` for the event loop, which goes on meanwhile."""
    kill_all(0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while running():  # noqa: ASYNC110 - includes children whose exit no task awaits any more
                await asyncio.sleep(_LOOK_AGAIN_S)
    return running()


def running() -> list[int]:
    """The pids of this process's children that have not exited."""
    return sorted(child.pid for child in list(_RUNNING.values()) if not child.gone)


def _pidfd(pid: int) -> int | None:
    """A pidfd: a handle that a reused pid cannot take over. None where the process has exited already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
