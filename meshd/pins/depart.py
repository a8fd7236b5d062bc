"""What must be seen to before a node goes: that nothing goes with it.

Several may go at once. Each says so in the roster before it looks, and counts only copies on nodes that have heard of it
and do not leave themselves. Of two that begin at the same moment one has therefore heard of the other (each writes its mark
first and reads the other's afterwards), and that one does not count on it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from meshd import wire
from meshd.cluster.rest import Cluster
from meshd.errors import Code, MeshError
from meshd.mesh.store import MeshStore
from meshd.model import Pin
from meshd.pins import place
from meshd.pins.copies import Copies
from meshd.pins.keep import Emit, Keeper
from meshd.wire import Copy, Member

_SHOWN = 5
_AT_ONCE = 20  # entries that are handed over at a time
_ROUNDS_WITHOUT_GAIN = 20  # each follows a change that another node made meanwhile
_LOOKS = 5  # at who holds what, where others begin to leave meanwhile

_LOG = structlog.get_logger(part="leaving")

Exchange = Callable[[Iterable[Member]], Awaitable[set[str]]]
"""Gives these members this node's roster and takes theirs; the fingerprints of those that have it now."""

Forget = Callable[[str, set[str]], Awaitable[wire.Forgotten]]
"""States that the member of this name is none any more, relying on the copies of these fingerprints.

Raises MeshError BUSY where one of them leaves or was forgotten meanwhile; then nothing is stated.
"""


@dataclass(frozen=True, slots=True)
class Short:
    """An entry that has too few copies on the nodes that stay. held: fingerprints of those that hold it. goal: copies."""

    pin: Pin
    held: tuple[str, ...]
    goal: int


def too_few(pin: Pin, staying: Sequence[Member], answers: dict[str, Copy]) -> Short | None:
    """Whether a copy more is needed before the node that holds `pin` may go. answers: by fingerprint of who was asked.

    Only a copy that the pinset wants where it is counts: any other one may be let go at this moment.
    """
    held = tuple(
        m.fingerprint
        for m in staying
        if (not pin.allocations or m.cluster_id in pin.allocations)
        and (answer := answers.get(m.fingerprint)) is not None
        and answer.state == "held"
    )
    goal = max(1, place.target(pin.wanted, len(staying)))
    return None if len(held) >= goal else Short(pin, held, goal)


class Departure:
    """Has copies made of what the leaving node holds until the nodes that stay have as many as are wanted."""

    def __init__(self, cluster: Cluster, store: MeshStore, copies: Copies, keeper: Keeper) -> None:
        self._cluster = cluster
        self._store = store
        self._copies = copies
        self._keeper = keeper

    async def hand_over(self, emit: Emit, exchange: Exchange) -> None:
        """Say that this node leaves, and see what is here on those that stay.

        Raises MeshError LAST_COPY, FEWER_COPIES. Then the node stays, as where it is cut off, and the others know.
        """
        await self._store.set_leaving(True)
        try:
            await self.drain(emit, exchange)
        except BaseException as exc:
            await self._stay()
            # Where it is cut off, meshd stops or nobody listens: the heartbeat tells the others.
            if isinstance(exc, MeshError):
                await exchange(self._store.peers())
            raise

    async def _stay(self) -> None:
        """Take the mark back. Where it cannot be written now it is with the next statement about this node."""
        try:
            await self._store.set_leaving(False)
        except MeshError as exc:
            _LOG.warning("cannot write down that this node stays", error=str(exc))

    async def drain(self, emit: Emit, exchange: Exchange) -> None:
        """Before this node leaves, which its statement in the roster says: every entry has its copies elsewhere.

        Raises MeshError LAST_COPY (something would be lost) or FEWER_COPIES (nothing, but fewer copies than wanted).
        """
        me = self._store.fingerprint
        heard: set[str] = set()
        tried: dict[str, dict[str, str]] = {}
        idle, before = 0, (0, 0, 0)
        while not self._store.forgotten:
            heard |= await exchange([m for m in self._store.peers() if m.fingerprint not in heard])
            staying = self._store.staying(me)
            short = await self._short(staying, heard)
            if not short:
                return
            now = (len(short), sum(len(s.held) for s in short), sum(map(len, tried.values())))
            idle, before = (idle + 1 if now == before else 0), now
            await emit(
                wire.StepEvent(message=f"copying {_names([s.pin for s in short])} to other nodes first")
            )
            stuck = await self._copy(short, [m for m in staying if m.fingerprint in heard], tried, emit)
            if stuck or idle > _ROUNDS_WITHOUT_GAIN:
                raise self._refusal(stuck or short, staying, heard, tried)

    async def _short(self, staying: Sequence[Member], heard: set[str]) -> list[Short]:
        """What this node holds and has too few copies of among those that stay and have heard that it goes."""
        pins = {p.cid: p for p in await self._cluster.allocations()}
        here = await self._copies.local(list(pins))
        mine = [p for cid, p in pins.items() if here.states.get(cid) == "held"]
        answers = await self._answers(mine, [m for m in staying if m.fingerprint in heard])
        return [s for p in mine if (s := too_few(p, staying, answers[p.cid])) is not None]

    async def _answers(self, pins: Sequence[Pin], members: Sequence[Member]) -> dict[str, dict[str, Copy]]:
        """By CID and fingerprint. Two members may have one name, so the order tells them apart."""
        table = await self._copies.table([p.cid for p in pins], members)
        return {
            cid: {m.fingerprint: c for m, c in zip(members, row, strict=True)} for cid, row in table.items()
        }

    async def _copy(
        self, short: list[Short], staying: Sequence[Member], tried: dict[str, dict[str, str]], emit: Emit
    ) -> list[Short]:
        """One attempt for each; those for which there is no node left to try. tried: by CID and fingerprint, why not."""
        waiting = iter(short)
        stuck: list[Short] = []
        done = 0

        async def work() -> None:
            nonlocal done
            for one in waiting:
                if not await self._copy_one(one, staying, tried.setdefault(one.pin.cid, {})):
                    stuck.append(one)
                done += 1
                if done % 100 == 0:
                    await emit(wire.StepEvent(message=f"{done} of {len(short)} entries done"))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(short))):
                group.create_task(work())
        return stuck

    async def _copy_one(self, short: Short, staying: Sequence[Member], out: dict[str, str]) -> bool:
        """Have another copy made and wait for it; False where nobody is left to ask. out: who was tried, and why not."""
        pin, by_id = short.pin, {m.cluster_id: m for m in staying if m.fingerprint not in out}
        able = [
            dataclasses.replace(c, leaving=False) for c in self._keeper.candidates() if c.cluster_id in by_id
        ]
        keep = [i for i in pin.allocations if i in by_id]
        chosen = place.choose(short.goal, pin.cid, pin.size, able, keep=keep) if pin.allocations else by_id
        asked = [by_id[i] for i in chosen if by_id[i].fingerprint not in short.held]
        if not asked:
            return False
        union = tuple(dict.fromkeys((*pin.allocations, *chosen))) if pin.allocations else ()
        try:
            if set(union) != set(
                pin.allocations
            ):  # else those that shall hold it are at it, and are waited for
                pin = await self._keeper.commit(dataclasses.replace(pin, allocations=union), before=pin)
        except MeshError as exc:
            if exc.code is not Code.NOT_FOUND:  # removed, or changed by another node: the next look says
                out |= {m.fingerprint: exc.detail or exc.title for m in asked}
            return True
        kept = await self._keeper.see(pin, _silent, among=asked)
        why = {c.node: c.detail or _WHY.get(c.state, c.state) for c in kept.missing}
        out |= {m.fingerprint: why[m.name] for m in asked if m.name in why}
        return True

    def _refusal(
        self,
        stuck: list[Short],
        staying: Sequence[Member],
        heard: set[str],
        tried: dict[str, dict[str, str]],
    ) -> MeshError:
        lost = [s.pin for s in stuck if not s.held]
        fewer = [s.pin for s in stuck if s.held]
        said = []
        if lost:
            said.append(f"no other node that stays holds {_names(lost)}")
        if fewer:
            said.append(f"{_names(fewer)} would have fewer copies than wanted")
        why = {m.fingerprint: "it is away" for m in staying if m.fingerprint not in heard}
        for one in stuck:
            why |= tried.get(one.pin.cid, {})
        why = why or {m.fingerprint: "it takes nothing now" for m in staying}
        said += [f"{self._store.name_of(f)}: {w}" for f, w in list(why.items())[:_SHOWN]]
        if not staying and self._store.peers():
            said.append("all the others are leaving too")
        force = (
            "their content is gone then" if lost else "nothing is lost: each has a copy on a node that stays"
        )
        return MeshError(
            Code.LAST_COPY if lost else Code.FEWER_COPIES,
            "cannot leave",
            "; ".join(said),
            f"see who is there: meshctl peers; or: meshctl leave --force ({force})",
        )

    async def forget(self, name: str, exchange: Exchange, forget: Forget) -> wire.Forgotten:
        """Have the mesh forget a member once nobody needs it; look anew where others begin to leave meanwhile.

        Raises MeshError LAST_COPY, BUSY, and what `forget` raises; then the member is one.
        """
        for _ in range(_LOOKS):
            relying_on = await self.check_forget(name, exchange)
            try:
                return await forget(name, relying_on)
            except MeshError as exc:
                if exc.code is not Code.BUSY:
                    raise
        raise MeshError(
            Code.BUSY,
            f"cannot forget {name} now",
            "other nodes are leaving at this moment",
            f"meshctl forget {name}",
        )

    async def check_forget(self, name: str, exchange: Exchange) -> set[str]:
        """Before a member is forgotten: the fingerprints of those on whose copies that relies.

        Raises MeshError LAST_COPY where only it holds something.
        """
        member = self._store.by_name(name)
        if member is None:
            return set()  # whoever forgets it says so
        heard = await exchange([m for m in self._store.peers() if m.fingerprint != member.fingerprint])
        heard.add(self._store.fingerprint)
        staying = [m for m in self._store.staying(member.fingerprint) if m.fingerprint in heard]
        pins = await self._cluster.allocations()
        answers = await self._answers(pins, staying)
        one = [dataclasses.replace(p, wanted=1) for p in pins]  # fewer copies are made up for afterwards
        alone = [p for p in one if too_few(p, staying, answers[p.cid]) is not None]
        if alone:
            raise MeshError(
                Code.LAST_COPY,
                f"cannot forget {name}",
                f"no other node that can be reached and stays holds {_names(alone)}",
                f"start {name} again so that the others can copy it; or: meshctl forget {name} --force",
            )
        return {m.fingerprint for m in staying}


_WHY = {
    "unknown": "it does not answer",
    "missing": "it does not begin to fetch",
    "fetching": "it gets nothing more",
    "refused": "it has no room",
}


async def _silent(_: wire.Wire) -> None:
    """Nobody listens."""


def _names(pins: Sequence[Pin]) -> str:
    names = ", ".join(p.name for p in pins[:_SHOWN])
    return f"{names} and {len(pins) - _SHOWN} more" if len(pins) > _SHOWN else names
