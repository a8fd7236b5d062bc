"""A part of the daemon, and all that it says of itself: how it runs and stops, its facts, checks and files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from meshd.conditions import Check, FactSource
from meshd.periodic import Work
from meshd.state_files import StateFile


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs as long as the node does.

    period_s: seconds between two times; None for work that never ends by itself. share: of all time that it may take, at
    most. when_ready: only while this node serves. meanwhile: for a person, what is not done while it fails.
    """

    name: str
    work: Work
    meanwhile: str
    period_s: float | None = None
    share: float = 1.0
    when_ready: bool = False


class StopPhase(IntEnum):
    """The order of the end. Between REQUESTS and LOOPS kubo and the cluster are stopped."""

    WORK = 1  # what is under way and would hold up the engines
    REQUESTS = 2  # nobody is answered any more; not where another node takes over
    LISTENERS = 3
    CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Stop:
    """what: as it is called in the log where it fails."""

    what: str
    phase: StopPhase
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """start: before anybody is answered, in the order of the components; may raise MeshError. loops: then. stops: at the
    end, by phase; within one in the order of the components.

    facts, checks: see meshd.conditions. state_files: its own ones. release: closes them, so
    that leave can remove them; blocks.
    """

    name: str
    start: tuple[Callable[[], Awaitable[object]], ...] = ()
    loops: tuple[Loop, ...] = ()
    stops: tuple[Stop, ...] = ()
    facts: tuple[FactSource[Any], ...] = ()
    checks: tuple[Check, ...] = ()
    state_files: tuple[StateFile, ...] = ()
    release: Callable[[], None] = lambda: None
