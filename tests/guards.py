"""Fails each test that leaves something behind or holds up the event loop. A pytest plugin; on for every test.

Left behind is what was not there before the test and still is after it and its fixtures ended: an asyncio task, a
child process, a listening socket, an open event loop. What fixtures of a whole module start is looked for when the
module ends. What is found is also ended where that can be done, so that the next test does not pay for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
import pytest
import pytest_asyncio

from tests.processes import descendants, threads

_TESTS = Path(__file__).resolve().parent
LONGEST_STEP_S = 0.5
"""How long one step of an event loop may take. Others' time does not count: see Watchdog."""
GRACE_S = 2.0  # what was told to end may take so long


lives_on: list[Callable[[], Iterable[int]]] = []
"""Each names, by pid, processes that outlive a test or a module on purpose, until somebody else ends them."""


# -- what is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """What this process has at one moment."""

    children: frozenset[psutil.Process]
    sockets: Mapping[int, int]  # their inodes, with the file descriptor
    loops: frozenset[str]

    @classmethod
    def now(cls) -> Footprint:
        sockets, loops = {}, set()
        for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - twice each test: see tests/processes.py
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - the same
            except FileNotFoundError:  # the one that lists them
                continue
            if target == "anon_inode:[eventpoll]":  # each open event loop has one
                loops.add(f"an open event loop (file descriptor {fd})")
            elif target.startswith("socket:["):
                sockets[int(target[len("socket:[") : -1])] = fd
        return cls(frozenset(_processes(descendants(os.getpid()))), sockets, frozenset(loops))

    def children_since(self, before: Footprint) -> list[psutil.Process]:
        """Those that were not there before; but what a process from before started is that one's own affair, and so is
        what one does that lives on."""
        others = {child.pid for child in before.children}.union(*(pids() for pids in lives_on))
        return [
            child
            for child in self.children - before.children
            if child.pid not in others and others.isdisjoint(_parents(child))
        ]

    def left_since(self, before: Footprint) -> list[str]:
        """What is here and was not there before, as a person would say it."""
        found = [f"the process {_describe(child)}" for child in self.children_since(before)]
        for inode in self.sockets.keys() - before.sockets.keys():
            found += [f"a listening socket, {one}" for one in _listening(self.sockets[inode])]
        return sorted([*found, *(self.loops - before.loops)])


def _processes(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _listening(fd: int) -> Iterator[str]:
    """That socket, where it listens."""
    try:
        same = socket.socket(fileno=os.dup(fd))
    except OSError:  # closed meanwhile
        return
    with same:
        if same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield f"{'unix' if same.family == socket.AF_UNIX else 'tcp'} {same.getsockname()}"


def _parents(child: psutil.Process) -> set[int]:
    try:
        return {parent.pid for parent in child.parents()}
    except psutil.Error:
        return set()


def _describe(child: psutil.Process) -> str:
    try:
        return f"{child.pid} {child.status()} {' '.join(child.cmdline())[:200]}"
    except psutil.Error:
        return str(child.pid)


_told: set[str] = set()  # what one test left, which its module shall not be blamed for again


def _look(before: Footprint) -> None:
    """Fail where something is left and does not go within a short while."""
    deadline = time.monotonic() + GRACE_S
    nobody_sets_it = threading.Event()
    while left := [one for one in Footprint.now().left_since(before) if one not in _told]:
        if time.monotonic() > deadline:
            _told.update(left)
            for child in Footprint.now().children_since(before):
                try:
                    child.kill()
                    child.wait(GRACE_S)
                except psutil.Error:
                    pass
            pytest.fail("left behind: " + "; ".join(left), pytrace=False)
        nobody_sets_it.wait(0.02)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing() -> Iterator[None]:
    before = Footprint.now()
    yield
    _look(before)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    before = Footprint.now()
    watchdog.reports.clear()
    yield
    _look(before)
    if watchdog.reports:
        pytest.fail("the event loop was held up: " + "\n".join(watchdog.reports), pytrace=False)


# -- tasks ---------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _module_leaves_no_task() -> AsyncIterator[None]:
    yield
    await _look_at_tasks()


@pytest.fixture(autouse=True)
async def _leaves_no_task(_leaves_nothing: None) -> AsyncIterator[None]:
    """Set up first, so it looks last; the loop is closed only after it."""
    yield
    await _look_at_tasks()


async def _look_at_tasks() -> None:
    """What was cancelled or is about to end has until the loop has gone round a few times."""
    others: set[asyncio.Task[object]] = set()
    for _ in range(5):
        others = asyncio.all_tasks() - {t for t in (asyncio.current_task(),) if t is not None}
        if not others:
            return
        await asyncio.wait(others, timeout=0.02)
    names = "; ".join(sorted(f"{t.get_name()} {t.get_coro()}" for t in others))
    pytest.fail(f"left behind: {len(others)} running task: {names}", pytrace=False)


# -- the event loop ------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A step that has been seen twice. Whether it is to blame is known once it has ended: how long somebody waited for a
    CPU is told only when he gets one."""

    step: object
    waited: float  # all, as it was seen the second time
    seconds: float = 0.0  # from then on
    stack: str = ""  # where it was when it had taken too long
    of_a_fixture: bool = False


class Watchdog:
    """Sees each step of the main thread's event loops, and where one that takes too long is while it still does.

    On a busy machine a step may take long without any fault of its own. So only this counts: time in which the watching
    thread was not stopped (with the whole machine), less the time in which the main thread waited for a CPU, and less the
    time in which those waited for one for whom the main thread may have waited: a thread that it starts, a process that it
    spawns. A step that keeps the watching thread from running (it holds the GIL) is judged by the CPU time that it used.
    """

    _EVERY_S = 0.05

    def __init__(self) -> None:
        self.reports: list[str] = []
        self._step: object | None = None  # another object for each step
        self._watched: Watched | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._main = threading.get_ident()
        self._original = asyncio.Handle._run  # where the loop enters each step

    def start(self) -> None:
        original, clock, cpu, ident = self._original, time.monotonic, time.thread_time, threading.get_ident

        def run(handle: asyncio.Handle) -> None:
            if ident() != self._main:
                original(handle)
                return
            self._step = step = object()
            began, used = clock(), cpu()
            try:
                original(handle)
            finally:
                self._step = None
                if clock() - began > LONGEST_STEP_S:
                    self._judge(step, cpu() - used, handle)

        asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
        self._thread.start()

    def stop(self) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]
        self._over.set()
        self._thread.join()

    def _judge(self, step: object, busy: float, handle: asyncio.Handle) -> None:
        watched = self._watched
        if watched is None or watched.step is not step or not watched.stack:
            if busy > LONGEST_STEP_S:
                self.reports.append(f"{busy:.1f} s of computing in {handle!r}")
            return
        held = watched.seconds - (self._all_waited() - watched.waited)
        if max(busy, held) > LONGEST_STEP_S and not watched.of_a_fixture:
            self.reports.append(f"for more than {LONGEST_STEP_S} s here:\n{watched.stack}")

    def _watch(self) -> None:
        own, watching = os.getpid(), threading.get_native_id()
        seen, at, late = None, time.monotonic(), _waited(own, watching)
        while not self._over.wait(self._EVERY_S):
            step, now, late_now = self._step, time.monotonic(), _waited(own, watching)
            watched = self._watched
            if step is None or step is not seen:
                seen = step
            elif watched is None or watched.step is not step:
                self._watched = Watched(step, self._all_waited())
            else:
                watched.seconds += min(now - at, 2 * self._EVERY_S + late_now - late)
                if watched.seconds > LONGEST_STEP_S and not watched.stack:
                    frame = sys._current_frames().get(self._main)
                    watched.of_a_fixture = _of_a_fixture(frame)
                    watched.stack = "".join(traceback.format_stack(frame)[-6:]) if frame else ""
            at, late = now, late_now

    def _all_waited(self) -> float:
        """Seconds that the threads of this process but the watching one, and those of all that it has started, were ready
        to run and had no CPU."""
        own = os.getpid()
        mine = sum(_waited(own, task) for task in threads(own) if task != self._thread.native_id)
        return mine + sum(_waited(pid, task) for pid in descendants(own) for task in threads(pid))


def _waited(pid: int, task: int) -> float:
    """Seconds that a thread was ready to run and had no CPU; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/task/{task}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _of_a_fixture(frame: FrameType | None) -> bool:
    """Whether a fixture's own coroutine is what runs there: it makes and removes files, and waits for a busy disk."""
    while frame is not None:
        if frame.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            file = Path(frame.f_code.co_filename)
            return _TESTS in file.parents and not file.name.startswith("test_")
        frame = frame.f_back
    return False


watchdog = Watchdog()


def pytest_configure() -> None:
    watchdog.start()


def pytest_unconfigure() -> None:
    watchdog.stop()
