"""Failure detector by heartbeat, with an anti-entropy exchange of rosters and removals.

One task a peer, so that a frozen one delays no other.
"""

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
from meshd.principal import Principal
from meshd.wire import Heartbeat, Member, verbs

_MISSED = 3  # beats until a peer counts as not reachable
_WRITE_SEEN_EVERY_S = 600.0
_JITTER = 0.2  # of the interval, so that the nodes of a mesh do not beat in step
# How long to leave two rosters alone that differ even after an exchange (a newer node's).
_EXCHANGE_AGAIN_S = 60.0
_LOG = structlog.get_logger(part="heartbeat")

OnRemovals = Callable[[Member, int], Awaitable[None]]
BeforeBeat = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Monitored:
    """The state of one peer. since (when monitoring began), seen_at, exchanged_at: monotonic seconds."""

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
    """Sends a heartbeat to every live member, merges rosters, and reports changes of peers."""

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
        self.own: Heartbeat | None = None  # this node's own facts: the pins room sets them before each beat
        self._store = store
        self._peers = peers
        self._before_beat: list[BeforeBeat] = []
        self._on_removals: OnRemovals | None = None
        self._interval = interval
        self._now = now
        self._monotonic = monotonic
        self._monitored: dict[str, _Monitored] = {}
        self._states: tuple[PeerState, ...] | None = None  # a cache, dropped when something changes
        # Monotonic: when the first peer counts as away, unless it is heard again.
        self._states_until = math.inf
        self._seen_file = seen_file
        self._seen = _read_seen(seen_file)
        self._seen_written = 0.0
        self._changed = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        store.subscribe(self._roster_changed)

    # -- what other rooms use --------------------------------------------------------------------------------------

    def states(self) -> tuple[PeerState, ...]:
        """Each live member but this node, in the order of admission.

        Cached, as each outstanding copy polls it.
        """
        if self._states is None or self._monotonic() >= self._states_until:
            self._states = tuple(self._state(member) for member in self._store.peers())
            reached = [
                w.seen_at for w in self._monitored.values() if w.seen_at is not None and self._reachable(w)
            ]
            self._states_until = min(reached, default=math.inf) + _MISSED * self._interval
        return self._states

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the event loop when a peer comes or goes. It must neither block nor raise."""
        self._subscribers.append(callback)

    def subscribe_beats(self, callback: BeforeBeat) -> None:
        """Call `callback` before each beat, so that `own` is up to date."""
        self._before_beat.append(callback)

    def subscribe_removals(self, callback: OnRemovals) -> None:
        """Call `callback(member, count)` when a peer has recorded another number of removals than at its last success.

        Fewer means that the peer was set up anew. Where the callback raises, a later beat calls it again.
        """
        self._on_removals = callback

    def poke(self, fingerprint: str | None = None) -> None:
        """Send a heartbeat to that peer (default: all) now."""
        self._states = None  # it may be at another address
        for key, watched in self._monitored.items():
            if fingerprint in (None, key):
                watched.wake.set()

    async def answer(self, caller: Principal, theirs: Heartbeat) -> Heartbeat:
        """Take in a heartbeat, return this node's. It is the caller's own, whomever it names."""
        self.heard(caller.member(), theirs)
        return await self._own_beat()

    def heard(self, fingerprint: str, beat: Heartbeat) -> None:
        """Take in a heartbeat that a peer has sent; answer it at once where it has news."""
        watched = self._monitored.get(fingerprint)
        if watched is None:
            return
        before, watched.beat = watched.beat, beat
        self._states = None
        # Only for news since its last beat: two nodes that cannot agree (an older meshd, a full disk) would answer each
        # other without a pause. Our own next beat takes what was not taken now.
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
        """Run until cancelled. Follows the roster: monitors new members at once, and forgotten ones no more."""
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
        """Send one heartbeat and act on the response. Every failure becomes the peer's problem text."""
        try:
            try:
                await self._exchange_beats(watched)
            except MeshError as exc:
                watched.problem = str(exc)
                if exc.code is Code.FORGOTTEN:
                    await self._forgotten_by(watched.member, exc.by)
        except Exception as exc:  # noqa: BLE001 -- a bug in one beat must not end all of them; it is logged
            watched.problem = f"cannot beat it: {type(exc).__name__}"
            _LOG.exception("a beat failed", peer=watched.member.name)
        finally:
            self._states = None

    async def _exchange_beats(self, watched: _Monitored) -> None:
        mine = await self._own_beat()
        began = self._monotonic()
        theirs = await self._peers.call(watched.member, verbs.BEAT, mine)
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
        """Store when each peer was last seen, so that a restart knows which ones have been away for weeks."""
        if self._seen_file is None or self._now() - self._seen_written < _WRITE_SEEN_EVERY_S:
            return
        self._seen_written = self._now()
        self._seen |= {key: w.last_seen for key, w in self._monitored.items() if w.last_seen}
        text = json.dumps(self._seen)
        try:
            await asyncio.to_thread(files.write_atomically, self._seen_file, text)
        except OSError as exc:  # a full disk, which another check reports; the beat goes on
            _LOG.warning("cannot remember who was seen", error=str(exc))

    async def _exchange_rosters(self, watched: _Monitored, theirs: Heartbeat) -> None:
        pair = (self._store.digest(), theirs.roster_digest)
        if pair[0] == pair[1]:
            return
        recently = self._monotonic() - watched.exchanged_at < _EXCHANGE_AGAIN_S
        if pair == watched.exchanged and recently:
            return
        merged = await self._peers.call(watched.member, verbs.EXCHANGE_ROSTERS, self._store.roster())
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
        except Exception:  # noqa: BLE001 -- the hook is another room's; log its bug
            _LOG.exception("taking removals failed", peer=watched.member.name)
        else:
            watched.removals_taken = count

    async def _forgotten_by(self, member: Member, by: str) -> None:
        """Store that the mesh has forgotten this node, as a member says: it is for good.

        by: fingerprint of the node that forgot it, from the roster there. An older meshd does not send it, and the
        member that reports it first need not be that node.
        """
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
    """Fingerprint -> wall clock seconds when last seen. A file that cannot be read counts as empty, without harm."""
    return {k: float(v) for k, v in files.read_known(file).items() if isinstance(v, int | float)}


def _other_protocol(theirs: int) -> str:
    """Which of the two nodes has the older protocol, as text for a person at this node."""
    behind = "this node" if theirs > PROTOCOL else "that node"
    return f"it speaks protocol {theirs} and this node {PROTOCOL}: update meshd on {behind}"
