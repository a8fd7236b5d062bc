"""What the gate asks of this room before it lets the cluster have its way, and what it lets it have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshd.errors import MeshError
from meshd.kubo.rpc import Kubo, KuboError, json_lines
from meshd.pins.storage import Room, Storage
from tests.mesh_room.nodes import Node
from tests.pins.attic import Attic


@pytest.fixture
async def door(attic: Attic) -> AsyncIterator[Kubo]:
    """The gate, as the cluster has it: it takes it for kubo."""
    await attic.pins.gate.start()
    made = Kubo(attic.pins.gate.socket)
    yield made
    await made.close()
    await attic.pins.gate.stop()


async def fetch(door: Kubo, cid: str) -> None:
    """As the cluster asks for it."""
    async with door.call("pin/add", [cid], recursive="true", progress="true") as answer:
        lines = [line async for line in json_lines(answer.content)]
    assert lines[-1]["Pins"] == [cid]


async def refusal(door: Kubo, cid: str) -> str:
    with pytest.raises(KuboError) as caught:
        await fetch(door, cid)
    return caught.value.message


def a_disk(monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
    monkeypatch.setattr(Storage, "room", lambda self: Room(10_000, free, self.reserve, None))


async def test_what_another_node_has_is_fetched(attic: Attic, door: Kubo, barn: Node) -> None:
    pin = attic.entry(attic.node, owner=barn.fingerprint, here=False)
    await fetch(door, pin.cid)
    assert attic.has(pin)
    assert pin.cid in attic.pins.gate.durable


async def test_pinned_is_said_only_of_what_kubo_has_when_it_is_asked_again(attic: Attic, door: Kubo) -> None:
    """What `pin/add` itself says is not believed: the cluster would count a copy that is none."""
    pin = attic.entry(here=False)
    attic.fake_kubo.forgets.add(pin.cid)
    with pytest.raises(MeshError):
        await fetch(door, pin.cid)
    assert pin.cid not in attic.pins.gate.durable
    attic.fake_kubo.forgets.clear()
    await fetch(door, pin.cid)
    assert pin.cid in attic.pins.gate.durable


async def test_what_does_not_fit_above_the_reserve_is_refused(
    attic: Attic, door: Kubo, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_disk(monkeypatch, free=1000)
    pin = attic.entry(attic.node, owner=barn.fingerprint, here=False, size=1001)
    assert "above its reserve" in await refusal(door, pin.cid)
    assert not attic.has(pin)


async def test_below_the_floor_nothing_is_taken_whoever_pinned_it(
    attic: Attic, door: Kubo, barn: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = attic.entry(here=False), attic.entry(here=False, owner=barn.fingerprint)
    a_disk(monkeypatch, free=0)
    for pin in (mine, theirs):
        assert "the disk has 0 B free" in await refusal(door, pin.cid)


async def test_on_a_disk_that_takes_nothing_nothing_is_taken(attic: Attic, door: Kubo) -> None:
    pin = attic.entry(here=False)
    attic.pins.storage.unwritable = "Input/output error"
    assert await refusal(door, pin.cid) == "Input/output error"


async def test_what_another_program_pinned_is_refused_where_the_disk_fills_while_it_is_looked_at(
    attic: Attic, door: Kubo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no entry, and says neither its size nor its owner."""
    cid = attic.fake_kubo.put({"no": "entry"})
    looked = attic.kubo.get_node

    async def slowly(*arguments: Any, **options: Any) -> Any:
        a_disk(monkeypatch, free=0)
        return await looked(*arguments, **options)

    monkeypatch.setattr(attic.kubo, "get_node", slowly)
    assert "the disk has 0 B free" in await refusal(door, cid)
    assert "pin/add" not in attic.fake_kubo.asked


async def test_the_offer_bounds_what_others_place_here_from_the_first_moment(
    attic: Attic, door: Kubo, barn: Node
) -> None:
    attic.pins.storage.offer = 100
    first, second = (attic.entry(owner=barn.fingerprint, here=False, size=60) for _ in range(2))
    own = attic.entry(here=False, size=5000)
    await fetch(door, first.cid)
    assert "[storage] offer" in await refusal(door, second.cid), "before a sweep has counted"
    await fetch(door, own.cid)
    assert (attic.has(first), attic.has(second), attic.has(own)) == (True, False, True)


async def test_what_the_cluster_unpins_stays_and_is_recorded(attic: Attic, door: Kubo, barn: Node) -> None:
    pin = attic.entry(attic.node, barn, kept=False)
    await door.unpin(pin.cid)
    assert attic.has(pin)
    assert attic.says(pin) == "lying"


async def test_kubo_is_connected_to_members_only(attic: Attic, door: Kubo, barn: Node) -> None:
    for peer_id in ("kubostranger", "kubo", ""):
        with pytest.raises(KuboError) as caught:
            await door.connect(f"/ip4/10.0.0.7/tcp/4001/p2p/{peer_id}")
        assert "not a member" in caught.value.message
    assert "swarm/connect" not in attic.fake_kubo.asked
    with pytest.raises(KuboError):  # the fake has no swarm; what matters is that it was asked
        await door.connect("/ip4/10.0.0.7/tcp/4001/p2p/kubobarn")
    assert "swarm/connect" in attic.fake_kubo.asked


@pytest.mark.parametrize(
    "command",
    ["repo/gc", "pin/update", "block/rm", "shutdown", "config", "key/gen", "get", "cat", "add", "block/put"],
)
async def test_no_other_command_gets_through(attic: Attic, door: Kubo, command: str) -> None:
    with pytest.raises(KuboError) as caught:
        await door.ask(command, "x")
    assert "may not ask this of kubo" in caught.value.message
    assert attic.fake_kubo.asked == []


@pytest.mark.parametrize("command", ["pin/ls", "pin/add?arg=bafyx&progress=true"])
async def test_where_kubo_breaks_off_the_cluster_is_cut_off_too_and_told_nothing_more(
    attic: Attic, door: Kubo, command: str
) -> None:
    """Another answer inside of the one that has begun would be read as a part of the list."""
    handed_on = asyncio.Event()

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        if b"dag/get" in asked:  # what the gate itself wants to know of it: it is no entry
            writer.write(head + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")
        else:
            writer.write(head + b'Transfer-Encoding: chunked\r\n\r\ne\r\n{"Progress":1}\r\n1\r\n\n\r\n')
            await writer.drain()
            await handed_on.wait()
        writer.close()

    await attic.fake_kubo.stop()
    attic.fake_kubo.socket.unlink(missing_ok=True)
    async with await asyncio.start_unix_server(breaks_off, attic.fake_kubo.socket):
        reader, writer = await asyncio.open_unix_connection(attic.pins.gate.socket)
        writer.write(f"POST /api/v0/{command} HTTP/1.1\r\nHost: kubo\r\nContent-Length: 0\r\n\r\n".encode())
        async with asyncio.timeout(20):
            begun = await reader.readuntil(b"Progress")
            assert begun.startswith(b"HTTP/1.1 200 ")
            handed_on.set()
            try:
                rest = await reader.read()
            except ConnectionResetError:
                rest = b""
        writer.close()
    assert b"HTTP/1.1" not in rest
    assert b"error" not in rest
    assert not rest.endswith(b"0\r\n\r\n"), "nobody takes it for whole"
