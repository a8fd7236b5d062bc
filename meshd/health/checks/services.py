"""Checks of kubo and the cluster: can they run here, do they run, answer and last?

A fault of the overlay is not repeated here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from meshd.conditions import Check, Facts
from meshd.health.facts import AuditFacts
from meshd.mesh.facts import MeshFacts
from meshd.model import Condition, Phase, ServiceState, Severity
from meshd.overlay.health import OverlayFacts
from meshd.supervise.facts import ServiceFacts

_OFTEN = 3
_WINDOW_S = 600.0
_CALM_S = 120.0  # so long without a crash, and it counts as well again


def programs(facts: Facts) -> Iterator[Condition]:
    """Whether the engines can run here, while there is no mesh. In a mesh the services report it."""
    error = facts.of(AuditFacts).unusable
    if error is not None and not facts.of(MeshFacts).in_mesh:
        hint = error.hint or "meshctl version; from a checkout: make setup"
        yield Condition("engine-missing", Severity.ERROR, error.title, error.detail, hint)


def services_run(facts: Facts) -> Iterator[Condition]:
    """Whether they run, answer, and open no socket but their own."""
    mesh, overlay, services = facts.of(MeshFacts), facts.of(OverlayFacts), facts.of(ServiceFacts).services
    if not mesh.in_mesh or overlay.state.address is None:
        return
    for service in services.values():
        if leak := _leak(service):
            yield Condition(
                "service-leak",
                Severity.ERROR,
                f"{service.name} had a socket where none may be",
                leak,
                f"meshctl logs {service.name}; it is tried again by itself",
                service.name,
                depends_on=("forgotten",),
            )
        elif service.phase is Phase.READY and service.missed:
            yield Condition(
                "service-frozen",
                Severity.ERROR,
                f"{service.name} runs but does not answer",
                "it is killed and started again if it goes on so",
                f"meshctl logs {service.name}",
                service.name,
                depends_on=("forgotten",),
            )
        elif service.phase is Phase.READY and service.starved:
            yield Condition(
                "service-starved",
                Severity.ERROR,
                f"{service.name} could not write to its disk",
                f"the disk was full; it said: {service.starved}",
                "make room (df -h; meshctl trash shows what waits to go); it is then started anew by itself",
                service.name,
                depends_on=("forgotten",),
            )
        elif service.phase is Phase.BACKOFF or (service.phase is Phase.STARTING and service.last_exit):
            cause, hint = _how_it_ended(service), _what_helps(service)
            yield Condition(
                "service-down",
                Severity.ERROR,
                f"{service.name} does not run",
                cause,
                hint,
                service.name,
                depends_on=("forgotten",),
            )


def _leak(service: ServiceState) -> str:
    """Its leaked socket, also during the back-off after it, so that the condition does not alternate with `down`."""
    if service.leak or service.phase is Phase.READY:
        return service.leak
    return service.last_exit.partition("it had a socket where none may be: ")[2]


def _killed(service: ServiceState) -> bool:
    return "ended by itself: signal SIGKILL" in service.last_exit


def _how_it_ended(service: ServiceState) -> str:
    """How it ended, with its last lines of output, unless it was killed: then they say nothing of the cause."""
    if _killed(service):
        return f"{service.last_exit.partition(';')[0]}, so something killed it"
    return service.last_exit


def _what_helps(service: ServiceState) -> str:
    """The hint. A kill is mostly the kernel's OOM killer's, of which the program's own log knows nothing."""
    if _killed(service):
        return f"free -h; sudo dmesg | grep -i 'out of memory'; {service.name} is tried again by itself"
    return f"{service.advice or f'meshctl logs {service.name}'}; it is tried again by itself"


class CrashHistory:
    """Counts crashes. Call `deaths` at each run of the checks."""

    def __init__(self) -> None:
        self._before: dict[str, ServiceState] = {}
        self._deaths: dict[str, deque[float]] = {}

    def deaths(self, now: float, services: dict[str, ServiceState]) -> dict[str, int]:
        """Service -> crashes within the last ten minutes, after it had run; none once it is calm. now: seconds.

        A service that never becomes ready does not count: it is down, and another check reports that.
        """
        for name, state in services.items():
            before = self._before.get(name)
            if before is not None and before.phase is Phase.READY:
                more = max(0, state.restarts - before.restarts)
                self._deaths.setdefault(name, deque()).extend([now] * more)
        self._before = dict(services)
        for times in self._deaths.values():
            while times and now - times[0] > _WINDOW_S:
                times.popleft()
            if times and now - times[-1] > _CALM_S:
                times.clear()
        return {name: len(times) for name, times in self._deaths.items() if times}


class CrashLoop:
    """Crash loop: a service that runs, dies, and runs again. Any one moment may find it well, so it keeps a history."""

    def __init__(self) -> None:
        self._history = CrashHistory()

    def look(self, facts: Facts) -> Iterator[Condition]:
        services, in_mesh = facts.of(ServiceFacts).services, facts.of(MeshFacts).in_mesh
        for name, count in self._history.deaths(facts.now, services).items():
            if count >= _OFTEN and in_mesh:
                how = services[name].last_exit.partition("; its last lines")[0]
                yield Condition(
                    "service-unstable",
                    Severity.WARNING,
                    f"{name} keeps dying",
                    f"{count} times in ten minutes; the last time: {how}",
                    f"free -h; df -h; sudo dmesg | tail; meshctl logs {name}",
                    name,
                    depends_on=("forgotten",),
                )


def checks() -> tuple[Check, ...]:
    """The checks of this file, made for one board, as one of them keeps a history."""
    return (
        Check("programs", programs),
        Check("services", services_run),
        Check("unstable", CrashLoop().look),
    )
