"""The listener of the peer API: its port, its limits, and what it says when something breaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Answer
from meshd.mesh import tls
from meshd.mesh.identity import Identity
from meshd.peer.listener import LIMITS, MEMBER, STRANGER
from meshd.serving.limiter import Limit
from meshd.wire import ConfirmRequest, Nothing, verbs
from tests.mesh_room.nodes import Node, raw, refusal_of
from tests.waiting import until

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


async def test_a_mistake_inside_is_answered_without_its_trace(pair: Pair) -> None:
    attic, barn = pair
    attic.holder.breaks = RuntimeError("the inside of this node")
    with capture_logs() as logs:
        refusal = await refusal_of(
            barn.peers.call(barn.view_of(attic), verbs.CONFIRM, ConfirmRequest(cids=["a"]))
        )
    assert refusal.code is Code.INTERNAL
    assert "inside of this node" not in str(refusal.problem())
    assert [entry["event"] for entry in logs] == ["a peer was not answered"]


@pytest.mark.parametrize(
    "broken", [ConnectionRefusedError(111, "Connection refused"), OSError(28, "No space left")]
)
async def test_a_socket_that_breaks_inside_is_no_mistake_of_the_caller(pair: Pair, broken: Exception) -> None:
    attic, barn = pair
    attic.holder.breaks = broken
    with capture_logs() as logs:
        refusal = await refusal_of(
            barn.peers.call(barn.view_of(attic), verbs.CONFIRM, ConfirmRequest(cids=["a"]))
        )
    assert refusal.code is Code.INTERNAL
    assert [entry["event"] for entry in logs] == ["a peer was not answered"]


async def test_a_caller_that_hangs_up_in_mid_body_is_no_news(pair: Pair) -> None:
    attic, _ = pair
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection(attic.listen, attic.port, ssl=tls.stranger_context())
        writer.write(b"POST /join HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        connections = attic.server._connections
        assert connections is not None
        await until(lambda: connections.requests_count > 1)
        writer.close()
        await until(lambda: not connections.connections)
    assert logs == []


async def test_the_port_is_taken(make_node: MakeNode) -> None:
    attic = await make_node("attic").start()
    with pytest.raises(MeshError) as caught:
        await make_node("barn").server.start(attic.listen, attic.port)
    assert caught.value.code is Code.BUSY
    assert "pid" in caught.value.detail
    assert "[ports] peer" in caught.value.hint


async def test_the_port_is_taken_on_every_address(make_node: MakeNode) -> None:
    with socket.socket() as everywhere:
        everywhere.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        with pytest.raises(MeshError) as caught:
            await make_node("barn").server.start("127.0.0.1", everywhere.getsockname()[1])
    assert caught.value.code is Code.BUSY


async def test_a_listener_that_shares_its_port_does_not_let_us_in(make_node: MakeNode) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(MeshError) as caught:
            await make_node("barn").server.start("127.0.0.1", other.getsockname()[1])
    assert caught.value.code is Code.BUSY


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "203.0.113.7"])
async def test_addresses_that_are_not_ours(make_node: MakeNode, address: str) -> None:
    with pytest.raises(MeshError) as caught:
        await make_node("attic").server.start(address, 0)
    assert caught.value.code is Code.NO_OVERLAY


async def test_start_again_on_the_same_port(pair: Pair) -> None:
    attic, barn = pair
    await barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing())
    address, port = attic.listen, attic.port
    await attic.server.stop()
    assert attic.server.listening is None
    refusal = await refusal_of(barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing()))
    assert "nothing listens" in refusal.detail
    await attic.server.start(address, port)
    await barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing())


async def test_a_connection_is_kept_and_one_that_ended_is_made_again(pair: Pair) -> None:
    attic, barn = pair
    await barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat())
    kept = _connections(attic)
    assert len(kept) == 1
    await barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat())
    assert _connections(attic) == kept
    await attic.server.start(attic.listen, attic.port)
    assert not _connections(attic)
    await barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat())
    assert len(_connections(attic) - kept) == 1


def _connections(node: Node) -> set[object]:
    assert node.server._connections is not None
    return set(node.server._connections.connections)


async def test_a_node_that_hangs_up_instead_of_answering_is_asked_again(pair: Pair) -> None:
    attic, barn = pair
    there = barn.view_of(attic)
    await barn.peers.call(there, verbs.ROSTER, Nothing())
    answers = attic.handlers["POST", "/confirm"]
    calls: list[Request] = []

    async def hangs_up_once(request: Request) -> Answer:
        calls.append(request)
        if len(calls) == 1:
            assert attic.server._connections is not None
            for connection in attic.server._connections.connections:
                assert connection.transport is not None
                connection.transport.abort()
        return await answers(request)

    attic.handlers["POST", "/confirm"] = hangs_up_once
    assert (await barn.peers.call(there, verbs.CONFIRM, ConfirmRequest(cids=["a"]))).states == {
        "a": "missing"
    }
    assert len(calls) == 2


async def test_a_call_under_way_outlives_its_membership(pair: Pair) -> None:
    """A node that leaves says so to all, and is no member any more while it does."""
    attic, barn = pair
    inside, go = asyncio.Event(), asyncio.Event()
    answers = attic.handlers["POST", "/roster"]

    async def waits(request: Request) -> Answer:
        inside.set()
        await go.wait()
        return await answers(request)

    attic.handlers["POST", "/roster"] = waits
    await barn.store.forget(barn.fingerprint, by=barn.fingerprint)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        push = group.create_task(
            barn.peers.call(barn.view_of(attic), verbs.EXCHANGE_ROSTERS, barn.store.roster())
        )
        await inside.wait()
        line = barn.peers._lines[attic.fingerprint]
        barn.peers.keep_only([])
        go.set()
        await push
    assert attic.view_of(barn).forgotten
    await until(lambda: line.session.closed)


async def test_strangers_are_few_and_short(make_node: MakeNode) -> None:
    attic = make_node("attic")
    attic.make_server(
        limits={**LIMITS, STRANGER: Limit(each=2, together=8, lasts_s=3.0)}, head_s=60.0, grace_s=60.0
    )
    await attic.start()
    await attic.found()
    writers: list[asyncio.StreamWriter] = []

    async def connect(local: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(
            attic.listen, attic.port, ssl=tls.stranger_context(), local_addr=(local, 0)
        )
        writers.append(writer)
        return reader

    async def is_hung_up_on(reader: asyncio.StreamReader) -> None:
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    async with asyncio.timeout(20):
        first = [await connect("127.0.0.5"), await connect("127.0.0.5")]
        with pytest.raises(ConnectionError):  # one address does not get all places
            await connect("127.0.0.5")
        others = [await connect(f"127.0.0.{n}") for n in (6, 6, 7, 7, 8, 8)]
        with pytest.raises(ConnectionError):
            await connect("127.0.0.9")
        assert not any(reader.at_eof() for reader in first + others)
        for reader in first + others:
            await is_hung_up_on(reader)
    for writer in writers:
        writer.close()
    status, _, _ = await raw(attic, "GET", "/hello")
    assert status == 200


def half_open(node: Node, local: str) -> socket.socket:
    """A caller that never says the first word of its handshake."""
    made = socket.create_connection((node.listen, node.port), source_address=(local, 0))
    made.setblocking(False)
    return made


async def test_handshakes_that_are_never_finished_are_few_before_it_is_known_who_calls(
    make_node: MakeNode,
) -> None:
    attic = make_node("attic")
    limits = {**LIMITS, STRANGER: Limit(each=3, together=5, lasts_s=60.0)}
    attic.make_server(limits=limits, handshake_s=60.0, grace_s=60.0)
    await attic.start()
    await attic.found()
    loop = asyncio.get_running_loop()
    calls = [half_open(attic, "127.0.0.5") for _ in range(20)]
    calls += [half_open(attic, f"127.0.0.{number}") for number in range(10, 20)]
    async with asyncio.timeout(20):
        for call in [*calls[3:20], *calls[22:]]:
            assert await loop.sock_recv(call, 1) == b""
    accepts = attic.server._listener
    assert accepts is not None
    assert accepts.count(STRANGER) == 5
    for call in calls:
        call.close()
    await until(lambda: not accepts.count(STRANGER))


async def test_the_oldest_handshake_that_is_never_finished_makes_room(make_node: MakeNode) -> None:
    attic = make_node("attic")
    limits = {**LIMITS, STRANGER: Limit(each=2, together=2, lasts_s=60.0)}
    attic.make_server(limits=limits, handshake_s=60.0, grace_s=0.2)
    await attic.start()
    await attic.found()
    calls = [half_open(attic, "127.0.0.5") for _ in range(2)]
    accepts = attic.server._listener
    assert accepts is not None
    await until(lambda: accepts.count(STRANGER) == 2)

    async def is_heard() -> bool:
        try:
            _, writer = await asyncio.open_connection(
                attic.listen, attic.port, ssl=tls.stranger_context(), local_addr=("127.0.0.6", 0)
            )
        except ConnectionError:
            return False  # their grace is not over
        writer.close()
        return True

    await until(is_heard)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(calls[0], 1), 20) == b""
    for call in calls:
        call.close()


async def test_members_are_heard_while_strangers_hold_all_their_places(make_node: MakeNode) -> None:
    attic, barn = make_node("attic"), make_node("barn")
    limits = {**LIMITS, STRANGER: Limit(each=4, together=4, lasts_s=60.0)}
    attic.make_server(limits=limits, handshake_s=60.0, grace_s=60.0)
    await attic.start()
    await barn.start()
    await attic.found()
    await barn.join(await attic.invite())
    calls = [half_open(attic, "127.0.0.5") for _ in range(4)]
    accepts = attic.server._listener
    assert accepts is not None
    await until(lambda: accepts.count(STRANGER) == 4)
    barn.peers.keep_only([])  # so that it connects anew
    await barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing())
    assert accepts.count(MEMBER)
    for call in calls:
        call.close()


async def test_what_is_no_http_is_answered_with_a_problem(pair: Pair) -> None:
    attic, _ = pair
    reader, writer = await asyncio.open_connection(attic.listen, attic.port, ssl=tls.stranger_context())
    writer.write(b"\x16\x03 nonsense\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    assert b"400" in answer.split(b"\r\n")[0]
    assert b"urn:meshd:problem:bad-request" in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


async def test_a_frozen_node_is_given_up(pair: Pair) -> None:
    """It accepts and says nothing, like a process that is stopped."""
    attic, barn = pair
    with socket.create_server(("127.0.0.3", 0)) as frozen:
        there = barn.view_of(attic).model_copy(
            update={"address": "127.0.0.3", "peer_port": frozen.getsockname()[1]}
        )
        async with asyncio.timeout(30):
            refusal = await refusal_of(barn.peers.call(there, verbs.BEAT, await barn.holder.beat()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "in time" in refusal.detail


async def test_a_body_that_is_too_long(pair: Pair) -> None:
    attic, barn = pair
    refusal = await refusal_of(
        barn.peers.call(barn.view_of(attic), verbs.CONFIRM, ConfirmRequest(cids=["x" * 5000] * 2000))
    )
    assert refusal.code is Code.BAD_REQUEST


async def test_addresses_of_two_kinds_do_not_meet(pair: Pair) -> None:
    _, barn = pair
    barn.address = "127.0.0.2"
    refusal = await refusal_of(barn.peers.call_at("::1", 4010, "0" * 64, verbs.CHALLENGE, Nothing()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert refusal.detail


async def test_an_answer_without_end_is_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshd.mesh import dial

    attic, barn = pair
    monkeypatch.setattr(dial, "ANSWER_MOST", 100)
    refusal = await refusal_of(barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "longer than" in refusal.detail


async def test_sessions_of_the_gone_are_closed(pair: Pair) -> None:
    attic, barn = pair
    await barn.peers.call(barn.view_of(attic), verbs.ROSTER, Nothing())
    session = barn.peers._lines[attic.fingerprint].session
    barn.peers.keep_only([])
    await until(lambda: session.closed)


def test_identities_differ(make_node: MakeNode) -> None:
    assert make_node("a").fingerprint != make_node("b").fingerprint
    assert isinstance(make_node("c").identity, Identity)
