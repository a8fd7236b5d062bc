"""Drain: before a node goes, the nodes that stay get replicas of all that it holds.

Several nodes may drain at once. Each states it in the roster before it looks, and counts only replicas on nodes that
have heard of it and do not leave themselves. Of two that begin at the same moment one has therefore heard of the other
(each writes its mark first and reads the other's afterwards), and that one does not count on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from meshd import wire
from meshd.errors import Code, MeshError, quoted
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import placement
from meshd.pins.commit import Committer
from meshd.pins.copies import Copies
from meshd.pins.nodes import Nodes
from meshd.pins.pinset import Pinset
from meshd.pins.wait import Waiter, silent
from meshd.wire import Member

_SHOWN = 5
_AT_ONCE = 20  # entries to hand over at a time
_ROUNDS_WITHOUT_GAIN = 20  # each follows a change that another node made meanwhile
_LOOKS = 5  # attempts to find out who holds what, where others begin to leave meanwhile

_LOG = structlog.get_logger(part="leaving")

Exchange = Callable[[Iterable[Member]], Awaitable[set[str]]]
"""Exchanges rosters with these members; the fingerprints of those that have this node's now."""

Forget = Callable[[Member, set[str]], Awaitable[wire.Forgotten]]
"""States that a member is none any more, relying on the replicas of these fingerprints.

Raises MeshError BUSY where one of them leaves or was forgotten meanwhile; then nothing is stated.
"""

Resign = Callable[[set[str]], Awaitable[None]]
"""States the same of this node."""

Held = Mapping[str, set[str]]
"""Fingerprint of a member that was asked -> CIDs that it holds."""


@dataclass(frozen=True, slots=True)
class Short:
    """An entry with too few replicas on the nodes that stay. held: fingerprints of its holders. goal: replicas."""

    pin: Pin
    held: tuple[str, ...]
    goal: int


def too_few(pin: Pin, staying: Sequence[Member], held: Held) -> Short | None:
    """Whether one more replica is needed before a holder of `pin` may go.

    Only a replica on an allocated node counts: any other one may be unpinned at this moment.
    """
    by = tuple(
        m.fingerprint
        for m in staying
        if (not pin.allocations or m.cluster_id in pin.allocations) and pin.cid in held.get(m.fingerprint, ())
    )
    goal = max(1, placement.target(pin.wanted, len(staying)))
    return None if len(by) >= goal else Short(pin, by, goal)


class Drain:
    """Replicates what the leaving node holds, until the nodes that stay have as many replicas as wanted."""

    def __init__(
        self,
        *,
        pinset: Pinset,
        store: MeshStore,
        copies: Copies,
        nodes: Nodes,
        committer: Committer,
        waiter: Waiter,
    ) -> None:
        self._pinset = pinset
        self._store = store
        self._copies = copies
        self._nodes = nodes
        self._committer = committer
        self._waiter = waiter

    async def hand_over(self, emit: wire.Emit, exchange: Exchange, resign: Resign) -> None:
        """State that this node leaves, drain it, and `resign`, relying on the nodes that stay.

        Raises MeshError LAST_COPY, FEWER_COPIES, BUSY, FORGOTTEN. Then, or when cancelled, the node stays, and the
        others know.
        """
        try:
            await self._store.set_leaving(True)
            for _ in range(_LOOKS):
                relying_on = await self.drain(emit, exchange)
                try:
                    return await resign(relying_on)
                except MeshError as exc:
                    if exc.code is not Code.BUSY:
                        raise
            raise _busy("leave", "meshctl leave")
        except BaseException as exc:
            await self._stay()
            # When cancelled, meshd stops or the client is gone: the heartbeat tells the others.
            if isinstance(exc, MeshError):
                await exchange(self._store.peers())
            raise

    async def _stay(self) -> None:
        """Take the mark back. Where it cannot be written now, the next statement about this node does so."""
        try:
            await self._store.set_leaving(False)
        except MeshError as exc:
            _LOG.warning("cannot write down that this node stays", error=str(exc))

    async def drain(self, emit: wire.Emit, exchange: Exchange) -> set[str]:
        """Replicate each entry to other nodes, once this node's statement says that it leaves.

        Returns the fingerprints of the nodes whose replicas that relies on. Raises MeshError LAST_COPY (something
        would be lost), FEWER_COPIES (nothing, but fewer replicas than wanted), BUSY (it must stay until the others are
        gone), FORGOTTEN.
        """
        me = self._store.fingerprint
        heard: set[str] = set()
        tried: dict[str, dict[str, str]] = {}
        idle, before = 0, (0, 0, 0)
        while not self._store.forgotten:
            heard |= await exchange([m for m in self._store.peers() if m.fingerprint not in heard])
            staying = self._store.staying(me)
            short = await self._short(staying, heard)
            if not short and not staying and self._store.peers():
                raise _last_to_leave()  # those that leave may rely on this node, whatever it holds now
            if not short:
                return heard & {m.fingerprint for m in staying}
            now = (len(short), sum(len(s.held) for s in short), sum(map(len, tried.values())))
            idle, before = (idle + 1 if now == before else 0), now
            await emit(
                wire.StepEvent(message=f"copying {_names([s.pin for s in short])} to other nodes first")
            )
            stuck = await self._copy(short, [m for m in staying if m.fingerprint in heard], tried, emit)
            if stuck == len(short) or idle > _ROUNDS_WITHOUT_GAIN:
                raise self._refusal(short, staying, heard, tried)
        raise MeshError(
            Code.FORGOTTEN,
            "cannot hand over what is here",
            f"{self._store.name_of(self._store.me().forgotten_by)} had the mesh forget this node meanwhile",
            "meshctl leave (what only this node holds is gone then); first save it with: meshctl get",
        )

    async def _short(self, staying: Sequence[Member], heard: set[str]) -> list[Short]:
        """The entries here with too few replicas on the nodes that stay and have heard that this one goes.

        Raises MeshError where this node cannot tell what it holds.
        """
        me, there = self._store.me(), [m for m in staying if m.fingerprint in heard]
        short: list[Short] = []
        await self._pinset.reread()
        async with contextlib.aclosing(self._pinset.each_part()) as parts:
            async for part in parts:
                mine = _held_of(await self._copies.ask_once(me, [p.cid for p in part]))
                held = await self._held(list(mine), there) if mine else {}
                looked_at = (too_few(pin, staying, held) for pin in part if pin.cid in mine)
                short += [one for one in looked_at if one is not None]
        return short

    async def _held(self, cids: Sequence[str], members: Sequence[Member]) -> Held:
        """The CIDs that each member holds now; members that do not answer are left out."""

        async def one(member: Member) -> set[str]:
            try:
                return _held_of(await self._copies.ask_once(member, cids))
            except MeshError:
                return set()

        found = await asyncio.gather(*(one(m) for m in members))
        return {m.fingerprint: held for m, held in zip(members, found, strict=True)}

    async def _copy(
        self, short: list[Short], staying: Sequence[Member], tried: dict[str, dict[str, str]], emit: wire.Emit
    ) -> int:
        """Try each entry once; for how many no node is left to try. tried: CID -> fingerprint -> why not."""
        waiting = iter(short)
        stuck = done = 0

        async def work() -> None:
            nonlocal stuck, done
            for one in waiting:
                if not await self._copy_one(one, staying, tried.setdefault(one.pin.cid, {})):
                    stuck += 1
                done += 1
                if done % 100 == 0:
                    await emit(wire.StepEvent(message=f"{done} of {len(short)} entries done"))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(short))):
                group.create_task(work())
        return stuck

    async def _copy_one(self, short: Short, staying: Sequence[Member], out: dict[str, str]) -> bool:
        """Make another replica and wait for it; False where no node is left. out: fingerprint -> why a node failed."""
        pin, by_id = short.pin, {m.cluster_id: m for m in staying if m.fingerprint not in out}
        able = [
            dataclasses.replace(c, leaving=False) for c in self._nodes.candidates() if c.cluster_id in by_id
        ]
        keep = [i for i in pin.allocations if i in by_id]
        chosen = (
            placement.choose(short.goal, pin.cid, pin.size, able, keep=keep) if pin.allocations else by_id
        )
        asked = [by_id[i] for i in chosen if by_id[i].fingerprint not in short.held]
        if not asked:
            return False
        union = tuple(dict.fromkeys((*pin.allocations, *chosen))) if pin.allocations else ()
        try:
            # Where nothing changes, the allocated nodes are at it: wait for them.
            if set(union) != set(pin.allocations):
                pin = await self._committer.change(pin, union)
        except MeshError as exc:
            if exc.code is not Code.NOT_FOUND:  # removed, or changed by another node: the next look says
                out |= {m.fingerprint: exc.detail or exc.title for m in asked}
            return True
        kept = await self._waiter.wait(pin, silent, among=asked)
        out |= {f: c.detail or _WHY.get(c.state, c.state) for f, c in kept.missing.items()}
        return True

    def _refusal(
        self,
        short: list[Short],
        staying: Sequence[Member],
        heard: set[str],
        tried: dict[str, dict[str, str]],
    ) -> MeshError:
        lost = [s.pin for s in short if not s.held]
        fewer = [s.pin for s in short if s.held]
        said = []
        if lost:
            said.append(f"no other node that stays holds {_names(lost)}")
        if fewer:
            said.append(f"{_names(fewer)} would have fewer copies than wanted")
        why = {m.fingerprint: "it is away" for m in staying if m.fingerprint not in heard}
        for one in short:
            why |= tried.get(one.pin.cid, {})
        why = why or {m.fingerprint: "it takes nothing now" for m in staying}
        said += [f"{self._store.name_of(f)}: {w}" for f, w in list(why.items())[:_SHOWN]]
        if not staying and self._store.peers():
            said.append("all the others are leaving too")
        away = [self._store.name_of(m.fingerprint) for m in staying if m.fingerprint not in heard]
        see = (
            f"start {away[0]}, or where it never comes back: meshctl forget {quoted(away[0])}" if away else ""
        )
        force = (
            "their content is gone then" if lost else "nothing is lost: each has a copy on a node that stays"
        )
        return MeshError(
            Code.LAST_COPY if lost else Code.FEWER_COPIES,
            "cannot leave",
            "; ".join(said),
            f"{see or 'see who is there: meshctl peers'}; or: meshctl leave --force ({force})",
        )

    async def forget(self, member: Member, exchange: Exchange, forget: Forget) -> wire.Forgotten:
        """Forget a member once nothing depends on it; check again where others begin to leave meanwhile.

        Raises MeshError LAST_COPY, BUSY, and what `forget` raises; then it stays a member.
        """
        for _ in range(_LOOKS):
            relying_on = await self.check_forget(member, exchange)
            try:
                return await forget(member, relying_on)
            except MeshError as exc:
                if exc.code is not Code.BUSY:
                    raise
        name = self._store.name_of(member.fingerprint)
        raise _busy(f"forget {name}", f"meshctl forget {quoted(name)}")

    async def check_forget(self, member: Member, exchange: Exchange) -> set[str]:
        """Check that a member may be forgotten; the fingerprints of the nodes whose replicas that relies on.

        Raises MeshError LAST_COPY where only that member holds something.
        """
        heard = await exchange([m for m in self._store.peers() if m.fingerprint != member.fingerprint])
        heard.add(self._store.fingerprint)
        staying = [m for m in self._store.staying(member.fingerprint) if m.fingerprint in heard]
        # One replica is enough: the rebalancer makes up for fewer than wanted.
        alone: list[Pin] = []
        await self._pinset.reread()
        async with contextlib.aclosing(self._pinset.each_part()) as parts:
            async for part in parts:
                held = await self._held([p.cid for p in part], staying)
                alone += [p for p in part if too_few(dataclasses.replace(p, wanted=1), staying, held)]
        if alone:
            name = quoted(self._store.name_of(member.fingerprint))
            raise MeshError(
                Code.LAST_COPY,
                f"cannot forget {name}",
                f"no other node that can be reached and stays holds {_names(alone)}",
                f"start {name} again so that the others can copy it; or: meshctl forget --force {name}",
            )
        return {m.fingerprint for m in staying}


def _held_of(answer: wire.Confirmed) -> set[str]:
    return {cid for cid, state in answer.states.items() if state == "held"}


def _last_to_leave() -> MeshError:
    return MeshError(
        Code.BUSY,
        "cannot leave now",
        "all the others are leaving too, and may count on this node until they are gone",
        "meshctl peers shows when they are; where one never comes back: meshctl forget NODE; then: meshctl leave",
    )


def _busy(what: str, again: str) -> MeshError:
    return MeshError(Code.BUSY, f"cannot {what} now", "other nodes are leaving at this moment", again)


_WHY = {
    "unknown": "it does not answer",
    "missing": "it does not begin to fetch",
    "fetching": "it gets nothing more",
    "refused": "it has no room",
}


def _names(pins: Sequence[Pin]) -> str:
    names = ", ".join(p.name for p in pins[:_SHOWN])
    return f"{names} and {len(pins) - _SHOWN} more" if len(pins) > _SHOWN else names
