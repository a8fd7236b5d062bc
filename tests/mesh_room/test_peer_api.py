"""The peer API over real TLS: who gets in, and what everybody else is told."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import aiohttp
import pytest

from meshd.errors import Code
from meshd.http.request import Request
from meshd.http.route import Answer
from meshd.mesh import tls
from meshd.mesh.secrets import Secrets
from meshd.wire import ConfirmRequest, Nothing, ReleaseRequest, Removal, Removals, RemovalsAfter, verbs
from tests.mesh_room.nodes import Node, raw, refusal_of
from tests.mesh_room.test_peer_rules import WHO_MAY

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


MEMBER_ROUTES = [route for route, access in WHO_MAY.items() if access == "member"]


@pytest.mark.parametrize(
    ("method", "path"), [*MEMBER_ROUTES, ("GET", "/"), ("GET", "/status"), ("DELETE", "/hello")]
)
async def test_a_stranger_gets_nothing_but_hello_and_joining(pair: Pair, method: str, path: str) -> None:
    attic, _ = pair
    status, answer, headers = await raw(attic, method, path, {} if method == "POST" else None)
    assert status == 403
    assert answer["code"] == "denied"
    assert "archive" not in str(answer)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Server"] == "meshd"


async def test_hello_says_only_protocol_and_fingerprint(pair: Pair) -> None:
    attic, barn = pair
    status, answer, headers = await raw(attic, "GET", "/hello")
    assert (status, answer) == (200, {"protocol": 1, "fingerprint": attic.fingerprint})
    assert "aiohttp" not in str(headers)
    assert (await barn.peers.hello(attic.listen, attic.port)).fingerprint == attic.fingerprint


async def test_join_makes_a_member(pair: Pair) -> None:
    attic, barn = pair
    assert attic.store.digest() == barn.store.digest()
    assert [member.name for member in attic.joined] == ["barn"]
    assert Secrets.load(barn.folder) == Secrets.load(attic.folder)
    assert attic.view_of(barn).admitted_by == attic.fingerprint
    answer = await barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat())
    assert answer.fingerprint == attic.fingerprint
    answer = await attic.peers.call(attic.view_of(barn), verbs.BEAT, await attic.holder.beat())
    assert answer.fingerprint == barn.fingerprint


async def test_members_ask_each_other(pair: Pair) -> None:
    attic, barn = pair
    there = attic.view_of(barn)
    barn.holder.held = {"bafyA"}
    barn.holder.owners = {"bafyA": attic.fingerprint, "bafyB": barn.fingerprint}
    barn.holder.recorded = [Removal(cid=cid, time=1.0, by=barn.fingerprint) for cid in ("x", "y", "z")]
    assert (await attic.peers.call(there, verbs.CONFIRM, ConfirmRequest(cids=["bafyA", "bafyB"]))).states == {
        "bafyA": "held",
        "bafyB": "missing",
    }
    assert (await attic.peers.call(there, verbs.RELEASE, ReleaseRequest(cid="bafyA"))).released
    assert (
        await refusal_of(attic.peers.call(there, verbs.RELEASE, ReleaseRequest(cid="bafyB")))
    ).code is Code.NOT_OWNER
    removals = await attic.peers.call(there, verbs.REMOVALS, RemovalsAfter(after=1))
    assert ([removal.cid for removal in removals.removals], removals.total) == (["y", "z"], 3)
    await attic.peers.call(there, verbs.TELL_REMOVALS, Removals(removals=removals.removals, total=0))
    assert barn.holder.told == [("y", attic.fingerprint), ("z", attic.fingerprint)]
    assert (await attic.peers.call(there, verbs.ROSTER, Nothing())) == barn.store.roster()


async def test_calls_leave_from_the_overlay_address(pair: Pair) -> None:
    attic, barn = pair
    seen: list[str] = []
    answers = attic.handlers["POST", "/challenge"]

    async def look(request: Request) -> Answer:
        seen.append(request.principal.address)
        return await answers(request)

    attic.handlers["POST", "/challenge"] = look
    await barn.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.CHALLENGE, Nothing())
    assert seen == ["127.0.0.2"]
    barn.address = None
    assert (
        await refusal_of(barn.peers.call(barn.view_of(attic), verbs.BEAT, await barn.holder.beat()))
    ).code is Code.NO_OVERLAY


# -- certificates ------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_nobody_knows_does_not_connect(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    other = make_node("other")
    context = tls.client_context(other.identity, attic.identity.certificate)
    with pytest.raises(aiohttp.ClientError):
        await raw(attic, "GET", "/roster", context=context)
    refusal = await refusal_of(other.peers.call(attic.store.me(), verbs.ROSTER, Nothing()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "certificate" in refusal.detail or "hung up" in refusal.detail


async def test_a_certificate_without_its_key_is_worth_nothing(pair: Pair, make_node: MakeNode) -> None:
    """A thief who copied the roster has every certificate and no key."""
    _, barn = pair
    thief = make_node("thief")
    (thief.folder / "node.crt").write_text(barn.identity.certificate)
    with pytest.raises(ssl.SSLError):
        tls.client_context(thief.identity, barn.identity.certificate)


async def test_only_the_pinned_certificate_is_talked_to(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    impostor = await make_node("impostor").start()
    await impostor.found()
    elsewhere = barn.view_of(attic).model_copy(
        update={"address": impostor.listen, "peer_port": impostor.port}
    )
    refusal = await refusal_of(barn.peers.call(elsewhere, verbs.BEAT, await barn.holder.beat()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "another node" in refusal.detail


async def test_only_tls_1_3(pair: Pair) -> None:
    attic, _ = pair
    context = tls.stranger_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientError):
        await raw(attic, "GET", "/hello", context=context)


async def test_a_forgotten_member_is_told_so_at_once(pair: Pair) -> None:
    attic, barn = pair
    there = barn.view_of(attic)
    await barn.peers.call(there, verbs.ROSTER, Nothing())  # this connection stays open
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    for call in (
        barn.peers.call(there, verbs.ROSTER, Nothing()),
        barn.peers.call(there, verbs.CONFIRM, ConfirmRequest(cids=[])),
    ):
        refusal = await refusal_of(call)
        assert refusal.code is Code.FORGOTTEN
        assert "attic" in refusal.detail
    await attic.server.start(attic.listen, attic.port)  # also by a listener that is new
    assert (await refusal_of(barn.peers.call(there, verbs.ROSTER, Nothing()))).code is Code.FORGOTTEN
    assert attic.store.digest() != barn.store.digest()


async def test_a_new_member_is_known_to_the_listener_at_once(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    assert (
        await refusal_of(cellar.peers.call(cellar.view_of(barn), verbs.ROSTER, Nothing()))
    ).code is Code.PEER_UNREACHABLE
    await barn.store.merge(attic.store.roster())
    assert len((await cellar.peers.call(cellar.view_of(barn), verbs.ROSTER, Nothing())).members) == 3
