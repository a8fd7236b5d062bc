"""A component: one subsystem's loops, stops, facts, checks and state files, as it declares them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from meshd.conditions import Check, FactSource
from meshd.http.route import Route
from meshd.periodic import Work
from meshd.state_files import StateFile


@dataclass(frozen=True, slots=True)
class Loop:
    """Periodic or endless work, which runs as long as the node does.

    period_s: seconds between two runs; None for work that never ends by itself. share: the most of all time that it
    may take. when_ready: only while this node serves. meanwhile: for a person, what is not done while it fails.
    """

    name: str
    work: Work
    meanwhile: str
    period_s: float | None = None
    share: float = 1.0
    when_ready: bool = False


class StopPhase(IntEnum):
    """The phases of the shutdown, in order. Between REQUESTS and LOOPS kubo and the cluster are stopped."""

    WORK = 1  # work under way that would hold up the engines
    REQUESTS = 2  # no more requests are answered; skipped where another node takes over
    LISTENERS = 3
    CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Stop:
    """One step of the shutdown. what: its name in the log where it fails."""

    what: str
    phase: StopPhase
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One subsystem's declaration.

    start: runs before any request is answered, in the order of the components; may raise MeshError. loops: begin after
    that. stops: run at the end by phase, within a phase from the last component to the first. routes: of the
    control API. peer_routes: of the peer API. facts, checks: see meshd.conditions. state_files: those that it owns. release: closes them, so that leave
    can remove them; blocks.
    """

    name: str
    start: tuple[Callable[[], Awaitable[object]], ...] = ()
    loops: tuple[Loop, ...] = ()
    stops: tuple[Stop, ...] = ()
    routes: tuple[Route, ...] = ()
    peer_routes: tuple[Route, ...] = ()
    facts: tuple[FactSource[Any], ...] = ()
    checks: tuple[Check, ...] = ()
    state_files: tuple[StateFile, ...] = ()
    release: Callable[[], None] = lambda: None
