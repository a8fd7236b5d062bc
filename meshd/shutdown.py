"""Shutdown of the process: in order, within a bound, and whatever happens.

SIGTERM or SIGINT asks for an orderly stop, a second one for a quick one. A thread of its own handles them and enforces
the deadline, as the event loop may be blocked in a call (a disk that does not answer) or by a task that does not end.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import structlog

from meshd.errors import START_AGAIN, Code, MeshError, one_line

LONGEST_S = 85.0  # from the first signal, or the first failure, to the last resort; TimeoutStopSec= is 90 s
KILL_NOW_S = 10.0  # from the second signal to the last resort
NODE_ENDED_S = 10.0  # for the rest once the node has ended: tasks to cancel, threads to join
_GIVE_WAY_S = 5.0  # for a start that is under way when a stop is requested
_ASK = (signal.SIGTERM, signal.SIGINT)
_LOG = structlog.get_logger(part="daemon")
T = TypeVar("T")


class Shutdown:
    """The state of the shutdown. stop: an orderly stop is requested. kill_now: time is up, kill what runs.

    Use it around asyncio.run, in the main thread, and `bind` it to the loop there.
    """

    def __init__(self, kill: Callable[[], list[int]]) -> None:
        """kill: the last resort before the process exits with 1. It kills all children and returns the pids of those
        that did not end. Thread-safe; takes some seconds at most.
        """
        self.stop = asyncio.Event()
        self.kill_now = asyncio.Event()
        self._kill = kill
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = 0
        self._deadline: float | None = None
        self._why = ""
        self._others: dict[int, Callable[[], object]] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._before: dict[signal.Signals, object] = {}
        self._thread = threading.Thread(target=self._watch_signals, name="shutdown", daemon=True)

    def __enter__(self) -> Shutdown:
        # Not the loop's own add_signal_handler: nothing reads its pipe while the loop is blocked.
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in _ASK:
            self._install(number)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # it is what signal.signal returned
        signal.set_wakeup_fd(-1)
        self._wake_write.close()  # which ends the thread
        self._thread.join()
        self._wake_read.close()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the two events in this loop from now on. Requests that came before are not lost."""
        self._loop = loop
        self._tell_the_loop()

    def on(self, number: signal.Signals, callback: Callable[[], object]) -> None:
        """Call `callback` in the event loop when that signal comes."""
        self._others[number] = callback
        self._install(number)

    def start_deadline(self) -> None:
        """Start the deadline of LONGEST_S: the shutdown has begun, requested or not."""
        self._within(LONGEST_S, f"it took longer than {LONGEST_S:.0f} s")

    def node_ended(self) -> None:
        """Tighten the deadline to NODE_ENDED_S: the node has ended, and only the event loop is left to close."""
        self._within(
            NODE_ENDED_S, f"tasks or threads of it had not ended {NODE_ENDED_S:.0f} s after all else"
        )

    async def unless_stopping(self, work: Awaitable[T]) -> T | None:
        """The result of `work`; None where a stop was requested first and it did not finish within some seconds."""
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({task}, timeout=_GIVE_WAY_S)
            return await task if task.done() else None
        finally:
            for each in (task, asked):
                each.cancel()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _install(self, number: signal.Signals) -> None:
        self._before.setdefault(number, signal.signal(number, _heard_by_the_thread))

    def _within(self, seconds: float, why: str) -> None:
        """Set the deadline to so many seconds from now, unless it is earlier already."""
        deadline = time.monotonic() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline, self._why = deadline, why
        with contextlib.suppress(OSError):  # a full socket wakes the thread anyway
            self._wake_write.send(b"\0")

    def _watch_signals(self) -> None:
        while True:
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            if not select.select([self._wake_read], [], [], left)[0]:
                self._last_resort()
            numbers = self._wake_read.recv(64)
            if not numbers:
                return
            for number in numbers:
                if number in _ASK:
                    self._ask()
                elif number in self._others:
                    self._call(self._others[number])

    def _ask(self) -> None:
        self._asked += 1
        if self._asked == 1:
            self._within(LONGEST_S, f"it took longer than {LONGEST_S:.0f} s")
        else:
            self._within(KILL_NOW_S, f"it was told so twice, and still ran {KILL_NOW_S:.0f} s later")
        self._tell_the_loop()

    def _tell_the_loop(self) -> None:
        if self._asked:
            self._call(self.stop.set)
        if self._asked > 1:
            self._call(self.kill_now.set)

    def _call(self, callback: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(callback)

    def _last_resort(self) -> None:
        """Kill the children and exit with 1. Uses neither the log nor any lock that another thread may hold."""
        left = self._kill()
        what = f"; these did not end: pid {', '.join(map(str, left))}" if left else ""
        said = f"meshd: cannot end in order\n  {self._why}; kubo and the cluster were killed{what}\n"
        said += f"  try: see below where it waits; {START_AGAIN}\n"
        # Standard error may be what everything waits for: a full pipe that nobody reads.
        saying = threading.Thread(target=_say, args=(said,), daemon=True)
        saying.start()
        saying.join(1.0)
        os._exit(1)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
        faulthandler.dump_traceback(2)


def _heard_by_the_thread(_: int, __: object) -> None:
    """Do nothing. Without a Python handler the signal's number would not reach the wake-up socket."""


class ShutdownSteps:
    """Runs the steps of a shutdown, each with its own guard and time-out, so that each runs whatever failed before.

    failure: the first one. Each is logged at once.
    """

    def __init__(self, kill_now: asyncio.Event) -> None:
        self.failure: BaseException | None = None
        self._kill_now = kill_now

    def failed(self, what: str, exc: BaseException, said: str = "a step of the shutdown failed") -> None:
        """Log a failure now, as the next step may take long or never end; keep the first one."""
        if isinstance(exc, MeshError):
            _LOG.error(said, failed=what, error=str(exc), hint=exc.hint)
        else:
            _LOG.error(said, failed=what, error=one_line(exc), exc_info=exc)
        self.failure = self.failure or exc

    async def run(self, what: str, work: Awaitable[object], seconds: float) -> bool:
        """Run one step; whether it was done within `seconds` and before a second signal."""
        task = asyncio.ensure_future(work)
        kill_now = asyncio.ensure_future(self._kill_now.wait())
        await asyncio.wait({task, kill_now}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        if self._kill_now.is_set():
            await asyncio.wait({task}, timeout=0.2)  # a step that need not wait is finished all the same
        kill_now.cancel()
        if not task.done():
            task.add_done_callback(_read)
            task.cancel()
            late = f"it was not done within {max(0.0, seconds):.0f} s"
            why = "a second signal came" if self._kill_now.is_set() else late
            self.failed(what, MeshError(Code.INTERNAL, f"cannot end in order: {what}", why, START_AGAIN))
            return False
        if task.cancelled():
            self.failed(
                what, MeshError(Code.INTERNAL, f"cannot end in order: {what}", "it was cut off", START_AGAIN)
            )
            return False
        if (exc := task.exception()) is not None:
            self.failed(what, exc)
            return False
        return True


def killed(left: list[int]) -> MeshError:
    """The error for engines that did not stop in order. left: pids of those that not even SIGKILL has ended."""
    if left:
        pids = ",".join(map(str, left))
        return MeshError(
            Code.BUSY,
            "cannot end kubo and the cluster",
            f"pid {pids} was killed and does not end",
            f"see what it waits for (often a disk): ps -o pid,stat,wchan,args -p {pids}",
        )
    return MeshError(Code.INTERNAL, "cannot end in order", "kubo and the cluster were killed", START_AGAIN)


def _read(task: asyncio.Future[object]) -> None:
    """Retrieve the exception of an abandoned task, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()
