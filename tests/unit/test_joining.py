"""A new member waits until it serves, and that it is one it says before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.joining import Joining
from tests.waiting import until

Verb = Callable[..., Awaitable[None]]


class Membership:
    """Makes this node a member when it is let; one that is a member already does nothing."""

    def __init__(self) -> None:
        self.admitted = asyncio.Event()
        self.busy = self.member = False

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        if self.busy:
            raise MeshError(Code.BUSY, "cannot begin now")
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    async def init(self, name: str, network: str, emit: wire.Emit) -> int | None:
        return await self._become()

    async def join(self, invite: str, name: str | None, emit: wire.Emit) -> int | None:
        return await self._become()

    async def join_network(
        self, network: str, name: str | None, emit: wire.Emit, *, confirm: bool
    ) -> int | None:
        return await self._become()

    async def _become(self) -> int | None:
        if self.member:
            return None
        await self.admitted.wait()
        self.member = True
        return 0

    def mesh(self) -> wire.Mesh:
        return wire.Mesh(name="archive", id="0" * 32, members=2, joined=0.0, replicas=3)


class Node:
    """A node that joins; why: it does not serve."""

    def __init__(self) -> None:
        self.membership = Membership()
        self.why = "kubo is starting"
        self.told: list[wire.Wire] = []
        self.is_member = 0
        parts: Any = (
            self.membership,
            SimpleNamespace(me=lambda: SimpleNamespace(name="attic")),
            SimpleNamespace(why_not=lambda: self.why),
            SimpleNamespace(count=self._count),
        )
        self.joining = Joining(*parts)

    async def _count(self) -> int:
        return 0

    async def emit(self, event: wire.Wire) -> None:
        self.told.append(event)

    def member(self) -> None:
        self.is_member += 1

    def verb(self, name: str) -> Awaitable[None]:
        words = {
            "init": ("archive", ""),
            "join": ("meshd1.x", None),
            "join_network": ("8056c2e21c000001", None),
        }
        verb: Verb = getattr(self.joining, name)
        return verb(*words[name], self.emit, member=self.member)


@pytest.mark.parametrize("verb", ["init", "join", "join_network"])
async def test_that_it_is_a_member_is_said_once_it_is_and_before_it_serves(verb: str) -> None:
    node = Node()
    joining = asyncio.ensure_future(node.verb(verb))
    await until(lambda: node.membership.busy)
    assert node.is_member == 0
    node.membership.admitted.set()
    await until(lambda: wire.StepEvent(message="kubo is starting") in node.told)
    assert (node.is_member, joining.done()) == (1, False)
    node.why = ""
    await joining
    assert isinstance(node.told[-1], wire.MeshResult)
    assert node.told[-1].created


@pytest.mark.parametrize("verb", ["init", "join", "join_network"])
async def test_while_one_waits_until_it_serves_another_is_told_that_it_is_a_member(verb: str) -> None:
    node = Node()
    node.membership.admitted.set()
    first = asyncio.ensure_future(node.verb(verb))
    await until(lambda: node.is_member)
    await node.verb(verb)
    assert isinstance(node.told[-1], wire.MeshResult)
    assert not node.told[-1].created
    node.why = ""
    await first


async def test_only_one_becomes_a_member_at_a_time() -> None:
    node = Node()
    first = asyncio.ensure_future(node.verb("join"))
    await until(lambda: node.membership.busy)
    with pytest.raises(MeshError) as caught:
        await node.verb("init")
    assert caught.value.code is Code.BUSY
    assert node.is_member == 0
    node.why = ""
    node.membership.admitted.set()
    await first
