"""decide() against services, networks and people that do what they like: whatever happens, the promises hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshd.model import OverlayState, Phase, ServiceState, Snapshot
from meshd.reconciler.decide import (
    ORDER,
    Action,
    Decision,
    Fail,
    Link,
    Listen,
    Recover,
    Start,
    Stop,
    decide,
    why_not_run,
)

RUNS = (Phase.STARTING, Phase.READY)
NAMES = st.sampled_from(ORDER)


@dataclass
class Flight:
    """An action under way. Its first step shows what it does, its second ends it."""

    action: Action
    since: float
    begun: bool = False
    pids: tuple[int | None, int | None] = (None, None)  # of the services when it began


class World(RuleBasedStateMachine):
    """A node whose actions take time, as those of the daemon do."""

    may_end = True  # it may be told to stop, be forgotten, and leave

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.address: str | None = "10.0.0.1"
        self.in_mesh = True
        self.forgotten = False
        self.stopping = False
        self.links: frozenset[str] = frozenset()
        self.linked: frozenset[str] = frozenset()
        self.disk_full = False
        self.listening: str | None = None
        self.listen_retry_at = 0.0
        self.recovered_for: tuple[int | None, int | None] = (None, None)
        self.services = {name: ServiceState(name) for name in ORDER}
        self.flights: dict[str, Flight] = {}
        self.last_pid = 0

    # -- what decide sees ------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        wanted = {}
        if self.in_mesh and self.address and not self.forgotten:
            wanted = {name: f"{name} on {self.address}" for name in ORDER}
        return Snapshot(
            self.now,
            OverlayState(self.address),
            self.in_mesh,
            self.forgotten,
            self.stopping,
            dict(self.services),
            wanted,
            self.links,
            self.linked,
            self.listening,
            self.listen_retry_at,
            self.recovered_for,
            {key: flight.since for key, flight in self.flights.items()},
            self.disk_full,
        )

    def set(self, name: str, **changes: object) -> None:
        self.services[name] = dataclasses.replace(self.services[name], **changes)  # type: ignore[arg-type]
        if name == "kubo" and "pid" in changes:
            self.linked = frozenset()  # kubo forgets its peerings when it ends

    def pids(self) -> tuple[int | None, int | None]:
        return self.services["kubo"].pid, self.services["cluster"].pid

    def failed(self, name: str) -> None:
        self.set(name, phase=Phase.BACKOFF, pid=None, retry_at=self.now + 2.0, healthy=True)

    # -- passes ----------------------------------------------------------------------------------------------------

    @rule()
    def one_pass(self) -> None:
        self.take_turn()

    def take_turn(self) -> Decision:
        """One pass, and what must hold of it."""
        seen = self.snapshot()
        decision = decide(seen)
        keys = [action.key for action in decision.actions]
        assert len(keys) == len(set(keys)), "two actions for one thing"
        assert decision.look_again_s > 0
        for action in decision.actions:
            self.check(action, seen)
            if action.key in self.flights:  # the start is cancelled, and what it started is killed
                self.set(action.key, phase=Phase.STOPPED, pid=None)
            self.flights[action.key] = Flight(action, self.now)
        if why_not_run(seen):
            self.check_that_all_ends(seen)
        return decision

    def check(self, action: Action, seen: Snapshot) -> None:
        flight = self.flights.get(action.key)
        if flight is not None:
            assert isinstance(flight.action, Start)
            assert isinstance(action, (Stop, Fail)), "single flight"
            assert self.services[action.key].phase is Phase.STARTING
        if isinstance(action, Start):
            state = self.services[action.service]
            assert not why_not_run(seen), "nothing starts where nothing may run"
            assert state.phase in (Phase.STOPPED, Phase.BACKOFF)
            if state.phase is Phase.BACKOFF and state.settings == seen.wanted_settings[action.service]:
                assert self.now >= state.retry_at, "a failure waits before its next try"
            if action.service == "cluster":
                assert self.services["kubo"].phase is Phase.READY, "the cluster starts after kubo is ready"
        if isinstance(action, Listen):
            assert action.address in (None, self.address), "the peer API is served on the overlay only"
        if isinstance(action, Recover):
            assert self.pids() != self.recovered_for, "once per generation"
        if isinstance(action, Link):
            assert self.services["kubo"].phase is Phase.READY

    def check_that_all_ends(self, seen: Snapshot) -> None:
        """After a pass in which nothing may run, whatever runs is on its way out, kubo after the cluster that was seen."""
        cluster_runs = seen.services["cluster"].phase in (*RUNS, Phase.STOPPING)
        for name, state in self.services.items():
            if state.phase not in RUNS:
                continue
            if name == "kubo" and cluster_runs and self.address is not None:
                continue
            flight = self.flights.get(name)
            assert flight is not None
            assert isinstance(flight.action, (Stop, Fail)), f"{name} runs where nothing may"

    # -- actions take their time -----------------------------------------------------------------------------------

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), works=st.booleans())
    def step(self, data: st.DataObject, works: bool) -> None:
        self.advance(data.draw(st.sampled_from(sorted(self.flights))), works)

    def advance(self, key: str, works: bool) -> None:
        flight = self.flights[key]
        if not flight.begun:
            flight.begun, flight.pids = True, self.pids()
            if self.begin(flight.action):
                return
        else:
            self.end(flight, works)
        del self.flights[key]

    def begin(self, action: Action) -> bool:
        """True where it goes on."""
        match action:
            case Start(name):
                if self.address is None:
                    return False
                self.last_pid += 1
                self.set(
                    name,
                    phase=Phase.STARTING,
                    pid=self.last_pid,
                    settings=f"{name} on {self.address}",
                    healthy=True,
                    leak="",
                    starved="",
                )
            case Stop(name):
                self.set(name, phase=Phase.STOPPING if self.services[name].pid else Phase.STOPPED)
        return True

    def end(self, flight: Flight, works: bool) -> None:
        match flight.action:
            case Start(name) if works:
                self.set(name, phase=Phase.READY)
            case Start(name) | Fail(name):
                self.failed(name)
            case Stop(name):
                self.set(name, phase=Phase.STOPPED, pid=None)
            case Listen(address) if works or address is None:
                self.listening = address
            case Listen():
                self.listen_retry_at = self.now + 5.0
            case Link(links) if works and self.services["kubo"].phase is Phase.READY:
                self.linked = links
            case Recover() if works:
                self.recovered_for = flight.pids

    # -- what may happen -------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(address=st.sampled_from(["10.0.0.1", "10.0.0.2", None]))
    def the_overlay_changes(self, address: str | None) -> None:
        self.address = address

    @rule()
    def the_node_joins(self) -> None:
        self.in_mesh, self.forgotten = True, False

    @precondition(lambda self: self.may_end)
    @rule()
    def the_node_leaves(self) -> None:
        self.in_mesh = self.forgotten = False  # who is in no mesh is forgotten by none

    @precondition(lambda self: self.may_end and self.in_mesh)
    @rule()
    def the_mesh_forgets_the_node(self) -> None:
        self.forgotten = True

    @rule(links=st.frozensets(st.sampled_from("abc")))
    def members_come_and_go(self, links: frozenset[str]) -> None:
        self.links = links

    @rule(name=NAMES)
    def a_service_dies(self, name: str) -> None:
        if self.services[name].phase is Phase.READY:
            self.failed(name)

    @rule(name=NAMES)
    def a_service_leaks(self, name: str) -> None:
        if self.services[name].phase in RUNS:
            self.set(name, leak="UDP 0.0.0.0:1")

    @rule(name=NAMES)
    def a_service_freezes(self, name: str) -> None:
        if self.services[name].phase is Phase.READY:
            self.set(name, healthy=False)

    @rule(name=NAMES)
    def the_disk_runs_full(self, name: str) -> None:
        self.disk_full = True
        if self.services[name].phase is Phase.READY:
            self.set(name, starved="no space left on device")

    @rule()
    def there_is_room_again(self) -> None:
        self.disk_full = False

    @precondition(lambda self: self.may_end)
    @rule()
    def meshd_is_told_to_stop(self) -> None:
        self.stopping = True

    # -- what holds always, and in the end -------------------------------------------------------------------------

    @invariant()
    def one_action_for_one_thing(self) -> None:
        assert all(key == flight.action.key for key, flight in self.flights.items())

    def teardown(self) -> None:
        """From here on nothing goes wrong: so all ends well, soon, and then nothing is left to do."""
        quiet_s = 0.0
        self.disk_full = False
        for _ in range(100):
            decision = self.take_turn()
            quiet_s = 0.0 if decision.actions or self.flights else quiet_s + decision.look_again_s
            for key in list(self.flights):
                self.advance(key, works=True)
            self.now += decision.look_again_s
            if quiet_s > 30.0:
                break
        else:
            raise AssertionError(f"it does not come to rest: {self.flights}")
        self.check_the_end()

    def check_the_end(self) -> None:
        phases = {state.phase for state in self.services.values()}
        if why_not_run(self.snapshot()):
            assert phases == {Phase.STOPPED}
            tells = self.forgotten and not self.stopping and self.in_mesh
            assert self.listening == (self.address if tells else None)
            return
        assert phases == {Phase.READY}
        assert all(s.healthy and not s.leak and not s.starved for s in self.services.values())
        assert all(s.settings == f"{s.name} on {self.address}" for s in self.services.values())
        assert self.listening == self.address
        assert self.linked == self.links
        assert self.recovered_for == self.pids()


class LivingWorld(World):
    """The node stays what it is; only all else goes wrong. Here its end is that all is well."""

    may_end = False


@pytest.mark.parametrize("world", [World, LivingWorld])
def test_whatever_happens_the_rules_hold_and_all_ends_well(world: type[World]) -> None:
    run_state_machine_as_test(world, settings=settings(max_examples=150, stateful_step_count=60))
