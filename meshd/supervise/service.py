"""A supervised program: start, readiness, health, back-off, stop. *Whether* it runs, the reconciler decides."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from meshd.errors import Code, MeshError, one_line
from meshd.model import Phase, ServiceState
from meshd.supervise.cgroups import Cgroup
from meshd.supervise.child import Child, Launch

BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0
HEALTHY_AGAIN = 30.0  # seconds of health that reset the back-off
ASK_EVERY = 5.0
ASK_TIMEOUT = 5.0
ASKS_MISSED = 3  # failed health probes in a row until a frozen child counts as down
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class Program(Protocol):
    """The interface of a supervised program."""

    name: str
    ready_timeout: float
    stop_grace: float

    async def prepare(self) -> Launch:
        """Write its configuration and make it startable. Raises MeshError where it cannot be started."""

    async def is_ready(self) -> bool:
        """Readiness probe, answered by the program itself. False, or any MeshError, while it is not ready."""

    async def ask(self) -> None:
        """Health probe: a cheap request that a healthy program answers. Raises MeshError."""


def backoff(failures: int) -> float:
    """Exponential back-off: seconds until the next start after `failures` failures in a row: 0.5, 1, 2 ... 30."""
    return min(BACKOFF_FIRST * 2.0 ** min(max(0, failures - 1), 16), BACKOFF_MOST)


class Service:
    """Supervisor of one program. `state` is the truth about it; each change of it calls `on_change`."""

    def __init__(
        self,
        program: Program,
        on_change: Callable[[], None],
        group: Cgroup | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """group: the cgroup for its processes, where there can be one."""
        self.program = program
        self._group = group
        self.lines: deque[tuple[float, str]] = deque(maxlen=500)
        self.line_listeners: list[Callable[[float, str], None]] = []
        self._on_change = on_change
        self._clock = clock
        self._state = ServiceState(program.name, since=clock())
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None
        self._failures = 0
        self._log = structlog.get_logger(service=program.name)
        self._lock = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._stopped.set()

    @property
    def state(self) -> ServiceState:
        return self._state

    def _set(self, **changes: object) -> None:
        if "phase" in changes and changes["phase"] != self._state.phase:
            changes["since"] = self._clock()
        self._state = dataclasses.replace(self._state, **changes)  # type: ignore[arg-type]  # keys are the fields' own
        if self._state.phase is Phase.STOPPED:
            self._stopped.set()
        else:
            self._stopped.clear()
        self._on_change()

    async def start(self, settings: str) -> None:
        """Start it. Returns when it is ready or has failed; the state says which. Never raises MeshError."""
        async with self._lock:
            if self._state.phase not in (Phase.STOPPED, Phase.BACKOFF):
                return
            last_exit = self._state.last_exit if self._state.phase is Phase.BACKOFF else ""
            self._set(
                phase=Phase.STARTING,
                settings=settings,
                healthy=True,
                missed=0,
                leak="",
                starved="",
                last_exit=last_exit,
            )
            try:
                launch = await self.program.prepare()
                if self._group is not None:
                    await self._group.make()
                self._child = await Child.spawn(launch, self._on_line, self._group)
                self._set(pid=self._child.pid)
                await self._become_ready(self._child)
            except MeshError as exc:
                await self._fail(exc)
            except OSError as exc:
                await self._fail(MeshError(Code.ENGINE_FAILED, f"cannot start {self.program.name}", str(exc)))
            except BaseException:  # cancelled, or a bug: either way leave no child unsupervised
                await self._kill()
                self._set(phase=Phase.STOPPED, pid=None)
                raise

    async def stop(self, why: str, *, grace: float | None = None) -> None:
        """Stop it: SIGKILL after `grace` seconds (0: at once; None: the program's own). Returns when it is gone."""
        async with self._lock:
            if self._child is None:
                self._set(phase=Phase.STOPPED)
                return
            self._log.info("stopping", why=why)
            self._set(phase=Phase.STOPPING)
            await self._end_watch()
            await self._child.stop(self.program.stop_grace if grace is None else grace)
            self._log.info("stopped", how=self._child.exit_text)
            self._child = None
            await self._end_group()
            self._set(phase=Phase.STOPPED, pid=None)

    async def fail(self, why: str) -> None:
        """Kill it and count it as a failure: it leaks, or it is frozen and cannot be asked to stop."""
        async with self._lock:
            if self._state.phase is Phase.BACKOFF:
                return  # it exited by itself meanwhile, which has counted already
            await self._end_watch()
            await self._fail(MeshError(Code.ENGINE_FAILED, f"{self.program.name} was killed", why))

    async def wait_stopped(self) -> None:
        """Return when it does not run and nobody is about to start it."""
        await self._stopped.wait()

    def report_leak(self, leak: str) -> None:
        """Record a socket where none may be. decide() kills the service for it."""
        if leak != self._state.leak:
            self._set(leak=leak)

    async def _become_ready(self, child: Child) -> None:
        deadline = self._clock() + self.program.ready_timeout
        pause = 0.02
        while not await self._asked_ready():
            if child.ended.is_set():
                raise self._died(child)
            if self._clock() > deadline:
                raise MeshError(
                    Code.ENGINE_FAILED,
                    f"cannot start {self.program.name}",
                    f"it was not ready after {self.program.ready_timeout:.0f} s; its last lines: {_tail(child)}",
                    f"meshctl logs {self.program.name}",
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await child.ended.wait()
            pause = min(pause * 1.5, 0.25)
        self._log.info("ready", pid=child.pid)
        self._set(phase=Phase.READY, retry_at=0.0)
        self._watch = asyncio.create_task(self._watched(child), name=f"watch-{self.program.name}")

    async def _asked_ready(self) -> bool:
        try:
            return await self.program.is_ready()
        except MeshError:
            return False
        except (ValueError, KeyError, TypeError) as exc:
            self._log.warning("an answer without sense", error=str(exc))
            return False

    async def _watched(self, child: Child) -> None:
        """Watch the child; where that itself fails, kill it, so that no program runs unsupervised."""
        try:
            await self._watch_child(child)
        except Exception as exc:  # noqa: BLE001 - a bug: log it, and report it as the service's failure
            self._log.exception("cannot watch it")
            async with self._lock:
                why = f"meshd made a mistake: {one_line(exc)}"
                await self._fail(
                    MeshError(Code.INTERNAL, f"cannot watch {self.program.name}", why, "journalctl -u meshd")
                )

    async def _watch_child(self, child: Child) -> None:
        missed = 0
        ready_at = self._clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_EVERY):
                    await child.ended.wait()
            if child.ended.is_set():
                async with self._lock:
                    await self._fail(self._died(child))
                return
            try:
                async with asyncio.timeout(ASK_TIMEOUT):
                    await self.program.ask()
                missed = 0
                if self._state.missed:
                    self._log.info("answers again")
                    self._set(healthy=True, missed=0)
            except Exception as exc:  # noqa: BLE001 - no answer, or a senseless one: unhealthy
                missed += 1
                self._log.warning("does not answer", missed=missed, error=str(exc))
                if self._state.healthy:
                    self._set(unhealthy_since=self._clock())
                self._set(missed=missed, healthy=missed < ASKS_MISSED)
            if self._failures and self._clock() - ready_at > HEALTHY_AGAIN:
                self._failures = 0

    def _died(self, child: Child) -> MeshError:
        return MeshError(
            Code.ENGINE_FAILED,
            f"{self.program.name} ended by itself",
            f"{child.exit_text}; its last lines: {_tail(child)}",
            f"meshctl logs {self.program.name}",
        )

    async def _fail(self, error: MeshError) -> None:
        await self._kill()
        self._failures += 1
        wait = backoff(self._failures)
        self._log.error("failed", error=str(error), again_in_s=wait)
        self._set(
            phase=Phase.BACKOFF,
            pid=None,
            retry_at=self._clock() + wait,
            last_exit=str(error),
            advice=error.hint,
            restarts=self._state.restarts + 1,
            healthy=True,
            missed=0,
        )

    async def _kill(self) -> None:
        if self._child is not None:
            await self._child.stop(0)
            self._child = None
        await self._end_group()

    async def _end_group(self) -> None:
        """Kill its descendants. Log what does not end: the next start fails until it does."""
        if self._group is not None:
            try:
                await self._group.end()
            except (MeshError, OSError) as exc:
                self._log.error("cannot end what it has started", error=str(exc))

    async def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(
                self._watch, return_exceptions=True
            )  # whatever ended the watch, the child must end too
            self._watch = None

    def _on_line(self, line: str) -> None:
        now = time.time()
        self.lines.append((now, line))
        level = "error" if "\tERROR\t" in line else "warning" if "\tWARN\t" in line else "info"
        getattr(self._log, level)("output", line=line)
        if not self._state.starved and _FULL.search(line) and self._state.phase is Phase.READY:
            self._set(starved=line[-300:])
        for listener in list(self.line_listeners):
            listener(now, line)


def _tail(child: Child) -> str:
    return " | ".join(list(child.last_lines)[-5:]) or "(none)"
