"""Failure detector by heartbeat, with an anti-entropy exchange of rosters and removals. One task a peer: a frozen one
delays no other."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from meshd import __version__, files
from meshd.errors import Code, MeshError
from meshd.mesh.peer_client import PeerClient
from meshd.mesh.protocol import PROTOCOL, speaks
from meshd.mesh.store import MeshStore
from meshd.model import PeerState
from meshd.wire import Heartbeat, Member

_MISSED = 3  # beats until a peer counts as not reachable
_WRITE_SEEN_EVERY_S = 600.0
_JITTER = 0.2  # of the interval, so that the nodes of a mesh do not beat in step
# So long two rosters are left that stay apart although they were exchanged (a newer node's).
_EXCHANGE_AGAIN_S = 60.0
_LOG = structlog.get_logger(part="heartbeat")

OnRemovals = Callable[[Member, int], Awaitable[None]]
BeforeBeat = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Monitored:
    """What is known of one peer. since (looked for), seen_at, exchanged_at: monotonic seconds."""

    member: Member
    since: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    last_seen: float = 0.0
    seen_at: float | None = None
    rtt_s: float | None = None
    ahead_s: float = 0.0
    beat: Heartbeat | None = None
    problem: str = ""
    removals_taken: int = 0
    exchanged: tuple[str, str] = ("", "")
    exchanged_at: float = 0.0
    was_reachable: bool = False


class Heartbeats:
    """Beats every live member, merges rosters, and says who has news."""

    def __init__(
        self,
        store: MeshStore,
        peers: PeerClient,
        *,
        seen_file: Path | None = None,
        interval: float = 5.0,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """interval: seconds."""
        self.own: Heartbeat | None = (
            None  # this node's own facts: what keeps content says them here before each beat
        )
        self._store = store
        self._peers = peers
        self._before_beat: list[BeforeBeat] = []
        self._on_removals: OnRemovals | None = None
        self._interval = interval
        self._now = now
        self._monotonic = monotonic
        self._monitored: dict[str, _Monitored] = {}
        self._states: tuple[PeerState, ...] | None = None  # until something is new
        # Monotonic: when the first of them counts as away, unless it is heard again.
        self._states_until = math.inf
        self._seen_file = seen_file
        self._seen = _read_seen(seen_file)
        self._seen_written = 0.0
        self._changed = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        store.subscribe(self._roster_changed)

    # -- what others see -------------------------------------------------------------------------------------------

    def states(self) -> tuple[PeerState, ...]:
        """Each live member but this node, in the order in which they came. Cheap where nothing is new: each copy that is
        waited for asks for it again and again."""
        if self._states is None or self._monotonic() >= self._states_until:
            self._states = tuple(self._state(member) for member in self._store.peers())
            reached = [
                w.seen_at for w in self._monitored.values() if w.seen_at is not None and self._reachable(w)
            ]
            self._states_until = min(reached, default=math.inf) + _MISSED * self._interval
        return self._states

    def subscribe(self, callback: Callable[[], None]) -> None:
        """`callback` is called in the loop when a peer comes or goes. It must not block nor raise."""
        self._subscribers.append(callback)

    def subscribe_beats(self, callback: BeforeBeat) -> None:
        """`callback` is called before each beat, so that what `own` says is of the moment."""
        self._before_beat.append(callback)

    def subscribe_removals(self, callback: OnRemovals) -> None:
        """`callback(member, count)`: the peer has recorded `count` removals, another number than when it last returned
        (fewer: it was set up anew). It is called again at a later beat where it raises."""
        self._on_removals = callback

    def poke(self, fingerprint: str | None = None) -> None:
        """Beat that peer (default: all) now."""
        self._states = None  # it may be at another address
        for key, watched in self._monitored.items():
            if fingerprint in (None, key):
                watched.wake.set()

    def heard(self, fingerprint: str, beat: Heartbeat) -> None:
        """That peer has just beaten us: look at it at once where that is news."""
        watched = self._monitored.get(fingerprint)
        if watched is None:
            return
        before, watched.beat = watched.beat, beat
        self._states = None
        # Only what is new with it since its last beat: two that cannot agree (an older meshd, a full disk) would else
        # answer each other without a pause. What was not taken is taken at the next beat of our own.
        told = before is not None and (before.roster_digest, before.removals) == (
            beat.roster_digest,
            beat.removals,
        )
        behind = beat.roster_digest != self._store.digest() or beat.removals != watched.removals_taken
        news = behind and not told
        if news or not self._reachable(watched):
            watched.wake.set()

    def _state(self, member: Member) -> PeerState:
        state = PeerState(
            member.fingerprint,
            self._store.name_of(member.fingerprint),
            self._peers.address_of(member),
            member.site,
            admitted=member.admitted,
            leaving=bool(member.leaving_since),
            away_since=self._monotonic(),
        )
        watched = self._monitored.get(member.fingerprint)
        if watched is None:
            return state
        state = dataclasses.replace(
            state,
            reachable=self._reachable(watched),
            last_seen=watched.last_seen,
            seen_at=watched.seen_at or 0.0,
            away_since=watched.since if watched.seen_at is None else watched.seen_at,
            rtt_s=watched.rtt_s,
            problem=watched.problem,
        )
        if watched.beat is None:
            return state
        return dataclasses.replace(
            state,
            ready=watched.beat.ready,
            accepts=watched.beat.accepts,
            free_bytes=watched.beat.free,
            roster_digest=watched.beat.roster_digest,
            version=watched.beat.version,
            ahead_s=watched.ahead_s,
        )

    def _reachable(self, watched: _Monitored) -> bool:
        return watched.seen_at is not None and self._monotonic() - watched.seen_at < _MISSED * self._interval

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled. Follows the roster: new members are beaten at once, forgotten ones no more."""
        tasks: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                peers = (
                    {} if self._store.forgotten else {peer.fingerprint: peer for peer in self._store.peers()}
                )
                for gone in set(tasks) - set(peers):
                    tasks.pop(gone).cancel()
                    self._monitored.pop(gone, None)
                self._peers.keep_only(peers)
                for fingerprint, member in peers.items():
                    known = _Monitored(member, self._monotonic(), last_seen=self._seen.get(fingerprint, 0.0))
                    watched = self._monitored.setdefault(fingerprint, known)
                    watched.member = member
                    watched.wake.set()
                    if fingerprint not in tasks:
                        tasks[fingerprint] = group.create_task(
                            self._follow(watched), name=f"beat-{member.name}"
                        )
                self._states = None
                await self._changed.wait()

    def _roster_changed(self) -> None:
        self._states = None
        self._changed.set()

    async def _follow(self, watched: _Monitored) -> None:
        async with asyncio.TaskGroup() as group:
            taking: asyncio.Task[None] | None = None
            while True:
                watched.wake.clear()
                await self._once(watched)
                self._tell(watched)
                if self._has_removals(watched) and (taking is None or taking.done()):
                    taking = group.create_task(self._take_removals(watched))  # may be long: the beat goes on
                try:
                    async with asyncio.timeout(self._interval * random.uniform(1 - _JITTER, 1)):  # noqa: S311 -- no secret
                        await watched.wake.wait()
                except TimeoutError:
                    pass

    async def _once(self, watched: _Monitored) -> None:
        """One beat and what follows from it. Every failure becomes the peer's problem text."""
        try:
            try:
                await self._exchange_beats(watched)
            except MeshError as exc:
                watched.problem = str(exc)
                if exc.code is Code.FORGOTTEN:
                    await self._forgotten_by(watched.member, exc.by)
        except Exception as exc:  # noqa: BLE001 -- a mistake in one beat must not end all of them; it is logged
            watched.problem = f"cannot beat it: {type(exc).__name__}"
            _LOG.exception("a beat failed", peer=watched.member.name)
        finally:
            self._states = None

    async def _exchange_beats(self, watched: _Monitored) -> None:
        mine = await self._own_beat()
        began = self._monotonic()
        theirs = await self._peers.beat(watched.member, mine)
        watched.seen_at = self._monotonic()
        watched.rtt_s = watched.seen_at - began
        watched.last_seen = self._now()
        if theirs.now:
            watched.ahead_s = theirs.now - (watched.last_seen - watched.rtt_s / 2)
        watched.beat = theirs
        watched.problem = "" if speaks(theirs.protocol) else _other_protocol(theirs.protocol)
        self._states = None
        self._tell(watched)
        await self._remember()
        await self._exchange_rosters(watched, theirs)

    async def _own_beat(self) -> Heartbeat:
        for callback in self._before_beat:
            await callback()
        return self.own or Heartbeat(
            protocol=PROTOCOL,
            fingerprint=self._store.fingerprint,
            version=__version__,
            roster_digest=self._store.digest(),
            removals=0,
            free=0,
            accepts=False,
            ready=False,
            now=self._now(),
        )

    async def _remember(self) -> None:
        """Write down who was seen when, so that a restart does not forget who has been away for weeks."""
        if self._seen_file is None or self._now() - self._seen_written < _WRITE_SEEN_EVERY_S:
            return
        self._seen_written = self._now()
        self._seen |= {key: w.last_seen for key, w in self._monitored.items() if w.last_seen}
        text = json.dumps(self._seen)
        try:
            await asyncio.to_thread(files.write_atomically, self._seen_file, text)
        except OSError as exc:  # a full disk: it is told elsewhere, and the beat goes on
            _LOG.warning("cannot remember who was seen", error=str(exc))

    async def _exchange_rosters(self, watched: _Monitored, theirs: Heartbeat) -> None:
        pair = (self._store.digest(), theirs.roster_digest)
        if pair[0] == pair[1]:
            return
        recently = self._monotonic() - watched.exchanged_at < _EXCHANGE_AGAIN_S
        if pair == watched.exchanged and recently:
            return
        merged = await self._peers.push_roster(watched.member, self._store.roster())
        watched.exchanged, watched.exchanged_at = pair, self._monotonic()
        if await self._store.merge(merged):
            _LOG.info("the roster has changed", peer=watched.member.name, members=len(self._store.members()))

    def _has_removals(self, watched: _Monitored) -> bool:
        return (
            self._on_removals is not None
            and watched.beat is not None
            and watched.beat.removals != watched.removals_taken  # fewer: it was set up anew
        )

    async def _take_removals(self, watched: _Monitored) -> None:
        if self._on_removals is None or watched.beat is None:
            return
        count = watched.beat.removals
        try:
            await self._on_removals(watched.member, count)
        except MeshError as exc:
            _LOG.warning("removals were not taken", peer=watched.member.name, cause=str(exc))
        except Exception:  # noqa: BLE001 -- the hook is another room's; its mistake is logged
            _LOG.exception("taking removals failed", peer=watched.member.name)
        else:
            watched.removals_taken = count

    async def _forgotten_by(self, member: Member, by: str) -> None:
        """A member says that the mesh has forgotten this node, which is for good: keep it. by: fingerprint of who had it
        forgotten, as the roster there says; an older meshd does not tell, and whoever tells it first need not be the one."""
        known = by if self._store.by_fingerprint(by) is not None else ""
        _LOG.warning("the mesh has forgotten this node", told_by=member.name, by=self._store.name_of(known))
        await self._store.forget(self._store.fingerprint, by=known)

    def _tell(self, watched: _Monitored) -> None:
        reachable = self._reachable(watched)
        if reachable == watched.was_reachable:
            return
        watched.was_reachable = reachable
        _LOG.info(
            "peer reachable" if reachable else "peer lost", peer=watched.member.name, problem=watched.problem
        )
        for callback in self._subscribers:
            callback()


def _read_seen(file: Path | None) -> dict[str, float]:
    """Fingerprint -> wall clock seconds. What cannot be read is not known, which does no harm."""
    return {k: float(v) for k, v in files.read_known(file).items() if isinstance(v, int | float)}


def _other_protocol(theirs: int) -> str:
    """Which of the two is behind; the words for a person who looks at this node."""
    behind = "this node" if theirs > PROTOCOL else "that node"
    return f"it speaks protocol {theirs} and this node {PROTOCOL}: update meshd on {behind}"
