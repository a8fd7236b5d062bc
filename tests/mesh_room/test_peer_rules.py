"""Who may ask a node what, and whom a node believes: also when the other side lies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from meshd.errors import Code
from meshd.mesh import tls
from meshd.principal import Access
from meshd.wire import ConfirmRequest, Nothing, verbs
from scripts import reference
from tests.mesh_room.nodes import Node, raw, refusal_of

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]

# The whole peer API, written out a second time: whoever changes who may call what has to say so here as well.
WHO_MAY: dict[tuple[str, str], Access] = {
    ("GET", "/hello"): "stranger",
    ("POST", "/challenge"): "stranger",
    ("POST", "/join"): "stranger",
    ("POST", "/ask"): "stranger",
    ("POST", "/ask/reveal"): "stranger",
    ("POST", "/ask/look"): "stranger",
    ("POST", "/ask/withdraw"): "stranger",
    ("POST", "/beat"): "member",
    ("GET", "/roster"): "member",
    ("POST", "/roster"): "member",
    ("POST", "/confirm"): "member",
    ("GET", "/removals"): "member",
    ("POST", "/removals"): "member",
    ("POST", "/release"): "member",
}


def test_who_may_call_each_route_is_as_it_is_written_here() -> None:
    assert {(r.method, r.path): r.access for r in reference.peer_routes()} == WHO_MAY


def test_every_call_between_nodes_is_answered_in_its_own_bounds() -> None:
    calls = {(v.method, v.path): v for v in vars(verbs).values() if isinstance(v, verbs.Verb)}
    routes = {(r.method, r.path): r for r in reference.peer_routes()}
    assert calls.keys() == routes.keys() == WHO_MAY.keys()
    for name, verb in calls.items():
        assert (routes[name].access, routes[name].body_most) == (verb.access, verb.most)
        assert routes[name].answers is verb.gives
        assert verb.within_s < (routes[name].answer_s or 0), "whoever answers does not give up first"
        assert verb.access == "member" or verb.most <= 64 * 1024, "a stranger says little"


def test_what_a_test_s_node_answers_is_what_a_real_one_does(make_node: MakeNode) -> None:
    assert set(make_node("attic").handlers) == set(WHO_MAY)


@pytest.mark.parametrize("route", [r for r, access in WHO_MAY.items() if access == "member"])
async def test_a_stranger_is_refused_by_the_door_and_not_only_by_the_handler(
    pair: Pair, route: tuple[str, str]
) -> None:
    attic, _ = pair
    status, answer, _ = await raw(attic, *route, {} if route[0] == "POST" else None)
    assert (status, answer["title"]) == (403, "cannot answer a stranger")


async def test_a_beat_is_the_caller_s_whomever_it_names(
    pair: Pair, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    heard: list[str] = []
    monkeypatch.setattr(attic.heartbeats, "heard", lambda fingerprint, beat: heard.append(fingerprint))
    lie = (await barn.holder.beat()).model_copy(update={"fingerprint": cellar.fingerprint})
    await barn.peers.call(barn.view_of(attic), verbs.BEAT, lie)
    assert heard == [barn.fingerprint]


# -- bounds --------------------------------------------------------------------------------------------------------


async def test_a_question_about_copies_has_two_thousand_cids_at_most(pair: Pair) -> None:
    attic, barn = pair
    context = tls.client_context(attic.identity, barn.identity.certificate)
    answer: dict[str, object] = {}
    for count, expected in ((2000, 200), (2001, 400)):
        body = {"cids": [f"c{n}" for n in range(count)]}
        status, answer, _ = await raw(barn, "POST", "/confirm", body, context=context)
        assert status == expected
        assert len(str(answer)) < 100_000
    assert "at most 2000 items" in str(answer["detail"])


async def test_a_stranger_s_request_is_bounded_more_than_a_member_s(pair: Pair) -> None:
    attic, barn = pair
    for size, why in ((60_000, "Field required"), (70_000, "it is too long")):
        status, answer, _ = await raw(attic, "POST", "/join", {"token": "a" * size})
        assert status == 400
        assert why in str(answer["detail"])
    await barn.peers.call(barn.view_of(attic), verbs.CONFIRM, ConfirmRequest(cids=["a" * 70_000]))


async def test_who_connects_and_says_nothing_is_hung_up_on(pair: Pair) -> None:
    """Before TLS is agreed on nobody knows who it is, and it counts among no strangers."""
    attic, _ = pair
    reader, writer = await asyncio.open_connection(attic.listen, attic.port)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_a_session_is_not_resumed(pair: Pair) -> None:
    """It would keep who the caller was at a handshake of long ago."""
    attic, barn = pair

    def twice() -> list[bool]:
        context = tls.client_context(barn.identity, attic.identity.certificate)
        reused, session = [], None
        for _ in range(2):
            with (
                socket.create_connection((attic.listen, attic.port), timeout=20) as plain,
                context.wrap_socket(plain, session=session) as made,
            ):
                made.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
                assert made.recv(4096).startswith(b"HTTP/1.1 200")
                reused.append(bool(made.session_reused))
                session = made.session
        return reused

    assert await asyncio.to_thread(twice) == [False, False]


# -- a node that lies ----------------------------------------------------------------------------------------------

Say = Callable[[web.BaseRequest], Any]


class Rogue:
    """Listens with the certificate of a node, and answers what a test has it say. calls: (from where, path)."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.calls: list[tuple[str, str]] = []
        self.port = 0
        self.say: Say

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else ("",)
        self.calls.append((peer[0], request.path))
        answer = self.say(request)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]


@contextlib.asynccontextmanager
async def lying(node: Node) -> AsyncIterator[Rogue]:
    rogue = Rogue(node)
    server = web.Server(rogue.answer, access_log=None)
    listener = await asyncio.get_running_loop().create_server(
        server, node.listen, 0, ssl=tls.server_context(node.identity, [])
    )
    rogue.port = listener.sockets[0].getsockname()[1]
    try:
        yield rogue
    finally:
        listener.close()
        await server.shutdown(1.0)


async def test_who_says_it_is_another_node_than_its_certificate_s_is_not_believed(
    pair: Pair, make_node: MakeNode
) -> None:
    attic, barn = pair
    async with lying(make_node("rogue")) as rogue:
        rogue.say = lambda _: web.json_response({"protocol": 1, "fingerprint": attic.fingerprint})
        refusal = await refusal_of(barn.peers.hello(rogue.node.listen, rogue.port))
        assert refusal.code is Code.PEER_UNREACHABLE
        assert "another node than the one whose certificate it shows" in refusal.detail
        rogue.say = lambda _: web.json_response({"protocol": 1, "fingerprint": rogue.node.fingerprint})
        assert (await barn.peers.hello(rogue.node.listen, rogue.port)).fingerprint == rogue.node.fingerprint


async def test_who_somebody_is_is_asked_from_the_overlay_address(pair: Pair, make_node: MakeNode) -> None:
    _, barn = pair
    seen: list[str] = []
    async with lying(make_node("rogue")) as rogue:
        rogue.say = lambda _: web.json_response({"protocol": 1, "fingerprint": rogue.node.fingerprint})
        server = rogue.node.listen
        made = asyncio.open_connection

        async def noted(*arguments: Any, **options: Any) -> Any:
            reader, writer = await made(*arguments, **options)
            seen.append(writer.get_extra_info("sockname")[0])
            return reader, writer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "open_connection", noted)
            await barn.peers.hello(server, rogue.port)
    assert seen == [barn.address], "the look at its certificate"
    assert rogue.calls == [(barn.address, "/hello")], "and the question"


async def test_where_it_is_sent_on_to_nobody_goes(pair: Pair, make_node: MakeNode) -> None:
    """A node that was taken over could have others call whatever it likes, from inside the overlay."""
    _, barn = pair
    async with lying(make_node("rogue")) as rogue:
        rogue.say = lambda _: web.Response(status=307, headers={"Location": "/elsewhere"})
        refusal = await refusal_of(
            barn.peers.call_at(
                rogue.node.listen, rogue.port, rogue.node.fingerprint, verbs.CHALLENGE, Nothing()
            )
        )
    assert refusal.code is Code.PEER_UNREACHABLE
    assert [path for _, path in rogue.calls] == ["/challenge"]


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(
    pair: Pair, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, barn = pair
    monkeypatch.setattr("meshd.mesh.dial.ANSWER_MOST", 100_000)
    async with lying(make_node("rogue")) as rogue:
        rogue.say = lambda _: web.Response(body=b" " * 100_001)
        refusal = await refusal_of(
            barn.peers.call_at(
                rogue.node.listen, rogue.port, rogue.node.fingerprint, verbs.CHALLENGE, Nothing()
            )
        )
    assert "longer than" in refusal.detail


async def test_a_kept_connection_is_not_used_for_a_member_that_is_elsewhere_now(
    pair: Pair, make_node: MakeNode
) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    beat = await barn.holder.beat()
    there = barn.view_of(attic)
    assert (await barn.peers.call(there, verbs.BEAT, beat)).fingerprint == attic.fingerprint
    moved = there.model_copy(update={"address": cellar.listen, "peer_port": cellar.port})
    assert (await refusal_of(barn.peers.call(moved, verbs.BEAT, beat))).code is Code.PEER_UNREACHABLE
    renewed = there.model_copy(update={"certificate": cellar.identity.certificate})
    assert (await refusal_of(barn.peers.call(renewed, verbs.BEAT, beat))).code is Code.PEER_UNREACHABLE
