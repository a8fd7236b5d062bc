"""One child process: spawn, its output line by line, its end, its stop. And the last word to all of them."""

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
"""From SIGKILL until a program is gone, unless it waits for a disk."""
_LONGEST_READ_S = 0.05  # of a flood of output, at one time
_LINE_LIMIT = 64 * 1024  # a longer line is handed on in pieces
_LOG = structlog.get_logger(part="supervise")
MARK = "MESHD_CHILD_OF"
"""Environment variable of every child: the path of the state folder it belongs to, for a person who looks."""
IDENTITY = "MESHD_CHILD_ID"
"""Environment variable of every child: which folder that is, so that a later run knows its leftovers."""


def identity(folder: Path) -> str:
    """The same for no two folders of this machine at a time, whatever their paths and in whichever container they are.

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
    unsaid: re.Pattern[str] | None = None  # lines of its output that go nowhere, found anywhere in them


class Child:
    """A running child. `ended` is set when the process is gone and its output was read to the end.

    With a control group, whatever it started is killed when it is gone itself. Without one, what left its session lives
    on, and a stop waits for what holds its output.
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
        """Start it in a session and a group of its own. Must be called from the main thread: PDEATHSIG fires when the
        *thread* that forked ends. group: made and empty. Raises OSError where Python itself cannot be started, or the
        state folder is gone."""
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
        except BaseException:  # too many open files: nobody would watch it
            process.kill()
            await process.wait()
            raise

    @property
    def exit_text(self) -> str:
        """How it ended, for a person: `exit 1` or `signal SIGKILL`; empty while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        if code >= 0:
            return f"exit {code}"
        return f"signal {signal.Signals(-code).name if -code in set(signal.Signals) else -code}"

    async def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds; returns when it is gone. A frozen child is woken to hear it."""
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
        """SIGKILL to it and to its group, without a word and without waiting. Any thread may call it."""
        self._signal(signal.SIGKILL)
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.kill(silently=True)

    @property
    def gone(self) -> bool:
        """Its process has ended, whether or not the event loop has seen it. Any thread may ask."""
        pidfd = self._pidfd
        if pidfd is None:
            return True
        poll = select.poll()  # select(2) takes no descriptor above 1023
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))  # also where it was closed just now (POLLNVAL), so it has

    def _signal(self, number: signal.Signals) -> None:
        # Process.send_signal would poll first, and can take the exit status from asyncio's own watcher.
        if self._pidfd is not None:
            with contextlib.suppress(OSError):  # it is gone
                signal.pidfd_send_signal(self._pidfd, number)

    def _is_gone(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)  # or it tells again and again
        self._end_others()

    def _end_others(self) -> None:
        """What it started. Not only after its output has ended: they may hold that open."""
        if self._group is not None:
            with contextlib.suppress(OSError):  # whoever starts it again tells of what cannot be ended
                self._group.kill()

    def _hand_on(self, line: str) -> None:
        if not line or (self._unsaid and self._unsaid.search(line)):
            return
        self.last_lines.append(line)
        try:
            self._on_line(line)
        except Exception:  # noqa: BLE001 - whoever listens must not end the reading
            _LOG.exception("cannot hand on what a program said", pid=self.pid)

    async def _read(self) -> None:
        output = self._process.stdout
        assert output is not None  # noqa: S101 - PIPE was asked for
        others_had_it = time.monotonic()
        try:
            while True:
                if time.monotonic() - others_had_it > _LONGEST_READ_S:
                    # What is in the buffer is read without giving way, and may be thousands of lines.
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
        except BaseException:  # nobody reads it, or watches it, any more: it would hang on its next word
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


_RUNNING: dict[int, Child] = {}  # all of this process, by pid


def kill_all(seconds: float) -> list[int]:
    """End every child of this process, whoever watches it. Blocks until they are gone; those that are not after so many
    seconds, by pid. Any thread may call it."""
    deadline = time.monotonic() + seconds
    for child in list(_RUNNING.values()):
        child.kill()
    while (left := running()) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
    return left


async def end_all(seconds: float) -> list[int]:
    """The same, and the loop goes on meanwhile."""
    kill_all(0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while running():  # noqa: ASYNC110 - also those whose end no task sees any more
                await asyncio.sleep(_LOOK_AGAIN_S)
    return running()


def running() -> list[int]:
    """The children of this process that have not ended, by pid."""
    return sorted(child.pid for child in list(_RUNNING.values()) if not child.gone)


def _pidfd(pid: int) -> int | None:
    """A handle of the process that no other one can get; None where it has ended already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
