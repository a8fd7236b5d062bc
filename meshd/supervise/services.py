"""All supervised programs as one mapping: whether all serve, their pids, and an event for each change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from meshd.model import Phase, ServiceState
from meshd.supervise.cgroups import Cgroups
from meshd.supervise.service import Program, Service


class Services(Mapping[str, Service]):
    """Name -> service, in start order."""

    def __init__(self, programs: Iterable[Program], groups: Cgroups | None = None) -> None:
        """groups: where the programs' cgroups are made; None where there can be none."""
        self._groups = groups
        self._subscribers: list[Callable[[], None]] = []
        self._services = {
            program.name: Service(
                program, self._changed, groups.of(program.name) if groups is not None else None
            )
            for program in programs
        }

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    @property
    def states(self) -> dict[str, ServiceState]:
        """Name -> current state."""
        return {name: service.state for name, service in self._services.items()}

    def is_ready(self) -> bool:
        """Whether this node serves: all of them run and answer."""
        return all(s.phase is Phase.READY and s.healthy for s in self.states.values())

    def pids(self) -> list[int]:
        """The pids of the programs that run, without their descendants."""
        return [s.pid for s in self.states.values() if s.pid is not None]

    def in_a_group(self, membership: str) -> bool:
        """Whether a process is in the cgroup of one of them. membership: its /proc/PID/cgroup."""
        return self._groups is not None and self._groups.holds(membership)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop after each change of one of them. It must neither block nor raise."""
        self._subscribers.append(callback)

    async def wait_stopped(self) -> None:
        """Return when none of them runs or is about to start."""
        for service in self._services.values():
            await service.wait_stopped()

    def _changed(self) -> None:
        for callback in self._subscribers:
            callback()
