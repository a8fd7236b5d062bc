"""The peer API over real TLS: who gets in, and what everybody else is told."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Mapping

import aiohttp
import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.mesh import invites, tls
from meshd.mesh.identity import Identity
from meshd.mesh.join import join
from meshd.mesh.secrets import Secrets
from meshd.peer.call import Call
from meshd.peer.nonces import Nonces
from meshd.wire import PeerJoinRequest, Removal
from tests.mesh_room.nodes import Node, until

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


async def _raw(
    node: Node, method: str, path: str, body: object = None, context: ssl.SSLContext | None = None
) -> tuple[int, dict[str, object], Mapping[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            f"https://{node.listen}:{node.port}{path}",
            json=body,
            ssl=context or tls.stranger_context(),
        ) as response,
    ):
        return response.status, json.loads(await response.read()), response.headers


async def _code(coroutine: object) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await coroutine  # type: ignore[misc]
    assert caught.value.title.startswith("cannot ")
    return caught.value


MEMBER_ROUTES = [
    ("POST", "/beat"),
    ("GET", "/roster"),
    ("POST", "/roster"),
    ("POST", "/confirm"),
    ("GET", "/removals"),
    ("POST", "/removals"),
    ("POST", "/release"),
]


@pytest.mark.parametrize(
    ("method", "path"), [*MEMBER_ROUTES, ("GET", "/"), ("GET", "/status"), ("DELETE", "/hello")]
)
async def test_a_stranger_gets_nothing_but_the_three(pair: Pair, method: str, path: str) -> None:
    attic, _ = pair
    status, answer, headers = await _raw(attic, method, path, {} if method == "POST" else None)
    assert status == 403
    assert answer["code"] == "denied"
    assert "archive" not in str(answer)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Server"] == "meshd"


async def test_hello_says_only_protocol_and_fingerprint(pair: Pair) -> None:
    attic, barn = pair
    status, answer, headers = await _raw(attic, "GET", "/hello")
    assert (status, answer) == (200, {"protocol": 1, "fingerprint": attic.fingerprint})
    assert "aiohttp" not in str(headers)
    assert (await barn.peers.hello(attic.listen, attic.port)).fingerprint == attic.fingerprint


async def test_join_makes_a_member(pair: Pair) -> None:
    attic, barn = pair
    assert attic.store.digest() == barn.store.digest()
    assert [member.name for member in attic.joined] == ["barn"]
    assert Secrets.load(barn.folder) == Secrets.load(attic.folder)
    assert attic.view_of(barn).admitted_by == attic.fingerprint
    answer = await barn.peers.beat(barn.view_of(attic), await barn.holder.beat())
    assert answer.fingerprint == attic.fingerprint
    answer = await attic.peers.beat(attic.view_of(barn), await attic.holder.beat())
    assert answer.fingerprint == barn.fingerprint


async def test_members_ask_each_other(pair: Pair) -> None:
    attic, barn = pair
    there = attic.view_of(barn)
    barn.holder.held = {"bafyA"}
    barn.holder.owners = {"bafyA": attic.fingerprint, "bafyB": barn.fingerprint}
    barn.holder.recorded = [Removal(cid=cid, time=1.0, by=barn.fingerprint) for cid in ("x", "y", "z")]
    assert (await attic.peers.confirm(there, ["bafyA", "bafyB"])).states == {
        "bafyA": "held",
        "bafyB": "missing",
    }
    assert (await attic.peers.release(there, "bafyA")).released
    assert (await _code(attic.peers.release(there, "bafyB"))).code is Code.NOT_OWNER
    removals = await attic.peers.removals(there, after=1)
    assert ([removal.cid for removal in removals.removals], removals.total) == (["y", "z"], 3)
    await attic.peers.push_removals(there, removals.removals)
    assert barn.holder.told == [("y", attic.fingerprint), ("z", attic.fingerprint)]
    assert (await attic.peers.roster(there)) == barn.store.roster()


async def test_calls_leave_from_the_overlay_address(pair: Pair) -> None:
    attic, barn = pair
    seen: list[str] = []
    route = attic.server._routes["POST", "/challenge"]

    async def look(call: Call) -> BaseModel:
        seen.append(call.remote)
        return await route.handler(call)

    attic.server._routes["POST", "/challenge"] = route._replace(handler=look)
    await barn.peers.challenge(attic.listen, attic.port, attic.fingerprint)
    assert seen == ["127.0.0.2"]
    barn.address = None
    assert (
        await _code(barn.peers.beat(barn.view_of(attic), await barn.holder.beat()))
    ).code is Code.NO_OVERLAY


# -- certificates ------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_nobody_knows_does_not_connect(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    other = make_node("other")
    context = tls.client_context(other.identity, attic.identity.certificate)
    with pytest.raises(aiohttp.ClientError):
        await _raw(attic, "GET", "/roster", context=context)
    refusal = await _code(other.peers.roster(attic.store.me()))
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
    refusal = await _code(barn.peers.beat(elsewhere, await barn.holder.beat()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "another node" in refusal.detail


async def test_only_tls_1_3(pair: Pair) -> None:
    attic, _ = pair
    context = tls.stranger_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientError):
        await _raw(attic, "GET", "/hello", context=context)


async def test_a_forgotten_member_is_told_so_at_once(pair: Pair) -> None:
    attic, barn = pair
    there = barn.view_of(attic)
    await barn.peers.roster(there)  # this connection stays open
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    for call in (barn.peers.roster(there), barn.peers.confirm(there, [])):
        refusal = await _code(call)
        assert refusal.code is Code.FORGOTTEN
        assert "attic" in refusal.detail
    await attic.server.start(attic.listen, attic.port)  # also by a listener that is new
    assert (await _code(barn.peers.roster(there))).code is Code.FORGOTTEN
    assert attic.store.digest() != barn.store.digest()


async def test_a_new_member_is_known_to_the_listener_at_once(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    await cellar.join(await attic.invite())
    assert (await _code(cellar.peers.roster(cellar.view_of(barn)))).code is Code.PEER_UNREACHABLE
    await barn.store.merge(attic.store.roster())
    assert len((await cellar.peers.roster(cellar.view_of(barn))).members) == 3


# -- joining -----------------------------------------------------------------------------------------------------------


async def _request(attic: Node, node: Node, line: str, **other: object) -> PeerJoinRequest:
    invitation = invites.decode(line, node.now())
    nonce = (await node.peers.challenge(attic.listen, attic.port, attic.fingerprint)).nonce
    joiner = node.joiner()
    signed = invites.statement(nonce, attic.fingerprint, invitation.invite_id, invitation.token, joiner)
    facts: dict[str, object] = {
        "protocol": 1,
        "invite_id": invitation.invite_id,
        "token": invitation.token,
        "nonce": nonce,
        "signature": node.identity.sign(signed).hex(),
        "joiner": joiner,
    }
    return PeerJoinRequest.model_validate(facts | other)


async def _sent(attic: Node, node: Node, request: PeerJoinRequest) -> Code:
    return (await _code(node.peers.join(attic.listen, attic.port, attic.fingerprint, request))).code


async def test_a_nonce_is_good_once(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    request = await _request(attic, cellar, await attic.invite())
    await cellar.peers.join(attic.listen, attic.port, attic.fingerprint, request)
    assert await _sent(attic, cellar, request) is Code.DENIED


async def test_forged_joins_are_denied_and_spend_nothing(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar, thief = await make_node("cellar").start(), await make_node("thief").start()
    line = await attic.invite()

    async def forged(**other: object) -> Code:
        return await _sent(attic, thief, await _request(attic, thief, line, **other))

    assert await forged(signature="00" * 64) is Code.DENIED
    assert await forged(signature="no hex") is Code.DENIED
    assert await forged(joiner=thief.joiner(name="other")) is Code.DENIED
    assert await forged(joiner=cellar.joiner()) is Code.DENIED
    assert await forged(nonce="0" * 64) is Code.DENIED
    assert await forged(token="0" * 64) is Code.DENIED
    assert await forged(protocol=7) is Code.BAD_REQUEST
    elsewhere = await _request(barn, thief, line)  # meant for another node, sent on to this one
    assert await _sent(attic, thief, elsewhere) is Code.DENIED
    assert len(attic.store.members()) == 2
    await cellar.join(line)
    assert len(attic.store.members()) == 3


async def test_a_nonce_is_good_for_a_minute_and_not_for_everybody() -> None:
    at = 0.0
    nonces = Nonces(most=5, per_address=3, monotonic=lambda: at)
    first = nonces.give("10.0.0.1")
    at = 59.0
    second = nonces.give("10.0.0.1")
    at = 60.0
    assert not nonces.take(first)
    assert nonces.take(second)
    assert not nonces.take(second)
    for _ in range(2):
        nonces.give("10.0.0.1")
    with pytest.raises(MeshError) as caught:
        nonces.give("10.0.0.1")
    assert caught.value.code is Code.BUSY
    for _ in range(3):
        nonces.give("10.0.0.2")
    with pytest.raises(MeshError):
        nonces.give("10.0.0.3")
    at = 200.0
    nonces.give("10.0.0.1")
    assert len(nonces._given) == 1


async def test_challenges_are_rationed(pair: Pair) -> None:
    attic, barn = pair
    codes = []
    for _ in range(12):
        status, _, _ = await _raw(attic, "POST", "/challenge")
        codes.append(status)
    assert codes == [200] * 10 + [409] * 2
    assert (await barn.peers.challenge(attic.listen, attic.port, attic.fingerprint)).nonce


@pytest.mark.parametrize("body", [None, {}, [], {"protocol": 1}, {"nonce": "x" * 100_000}])
async def test_nonsense_is_answered(pair: Pair, body: object) -> None:
    attic, _ = pair
    status, answer, _ = await _raw(attic, "POST", "/join", body)
    assert status == 400
    assert answer["code"] == "bad-request"
    assert "xxx" not in str(answer)


async def test_used_expired_revoked_foreign(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    used = await attic.invite()
    await cellar.join(used)
    dairy = await make_node("dairy").start()
    assert (await _code(dairy.join(used))).code is Code.INVITE_USED
    brief = await attic.invite(expires_s=60.0)
    attic.now.at += 61  # type: ignore[attr-defined]
    assert (await _code(dairy.join(brief))).code is Code.INVITE_EXPIRED
    slow = await _code(
        join(brief, dairy.joiner(), dairy.identity, dairy.peers, now=lambda: 0.0)
    )  # its clock is behind
    assert slow.code is Code.INVITE_EXPIRED
    revoked = await attic.invite()
    await attic.store.revoke(attic.store.invites()[-1].id)
    assert (await _code(dairy.join(revoked))).code is Code.BAD_INVITE
    own = await attic.invite()
    assert (await _code(attic.join(own))).code is Code.BAD_INVITE
    foreign = invites.decode(
        await barn.invite(), 0.0
    )  # another member's, with attic's address and fingerprint
    mixed = invites.encode(
        invites.Invitation(
            foreign.mesh_name,
            foreign.mesh_id,
            foreign.overlay,
            (f"{attic.listen}:{attic.port}",),
            attic.fingerprint,
            foreign.invite_id,
            foreign.token,
            foreign.expires,
        )
    )
    assert (await _code(dairy.join(mixed))).code is Code.BAD_INVITE
    assert (await _code(dairy.join(own[:-5]))).code is Code.BAD_INVITE
    assert dairy.store.mesh is None


async def test_a_name_that_is_taken_leaves_the_invite_good(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    second = await make_node("second").start()
    line = await attic.invite()
    refusal = await _code(second.join(line, name="BARN"))
    assert refusal.code is Code.NAME_TAKEN
    assert "--name" in refusal.hint
    await second.join(line, name="barn2")


async def test_the_same_node_is_answered_again(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    line = await attic.invite()
    lost = await join(line, cellar.joiner(), cellar.identity, cellar.peers, now=cellar.now)
    await cellar.join(line)
    assert cellar.store.roster() == lost.roster
    assert [member.name for member in attic.joined] == ["barn", "cellar"]


async def test_an_answer_that_is_lost_is_asked_for_again(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    route = attic.server._routes["POST", "/join"]
    calls: list[Call] = []

    async def loses_the_first(call: Call) -> BaseModel:
        answer = await route.handler(call)
        calls.append(call)
        if len(calls) == 1:
            raise ConnectionResetError
        return answer

    attic.server._routes["POST", "/join"] = route._replace(handler=loses_the_first)
    await cellar.join(await attic.invite())
    assert len(calls) == 2
    assert [member.name for member in attic.joined] == ["barn", "cellar"]


async def test_a_crash_between_admits_nobody(
    pair: Pair, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshd.mesh import state

    attic, _ = pair
    cellar = await make_node("cellar").start()
    line = await attic.invite()

    def cut(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(state, "write", cut)
        refusal = await _code(cellar.join(line))
    assert refusal.code is Code.BAD_STATE
    assert len(attic.store.members()) == 2
    assert [member.name for member in attic.joined] == ["barn"]
    await cellar.join(line)
    assert len(attic.store.members()) == 3


async def test_without_secrets_no_token_is_spent(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    line = await attic.invite()
    kept = Secrets.load(attic.folder)
    Secrets.erase(attic.folder)
    assert (await _code(cellar.join(line))).code is Code.BAD_STATE
    kept.save(attic.folder)
    await cellar.join(line)


async def test_somebody_else_at_the_address_learns_nothing(make_node: MakeNode) -> None:
    attic, impostor, barn = make_node("attic"), make_node("impostor"), make_node("barn")
    for node in (attic, impostor, barn):
        await node.start()
    await attic.found()
    await impostor.found()
    line = (
        await attic.store.issue_invite(60.0, "static", addresses=[f"{impostor.listen}:{impostor.port}"])
    ).invite
    assert line is not None
    asked: list[object] = []
    impostor.server._routes.clear()
    impostor.server._answer = asked.append  # type: ignore[method-assign,assignment]
    refusal = await _code(barn.join(line))
    assert refusal.code is Code.DENIED
    assert impostor.fingerprint[:4] in refusal.detail
    assert asked == []


async def test_nobody_there(make_node: MakeNode) -> None:
    attic, barn = await make_node("attic").start(), await make_node("barn").start()
    await attic.found()
    line = await attic.invite()
    where = f"{attic.listen}:{attic.port}"
    await attic.server.stop()
    refusal = await _code(barn.join(line))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert where in refusal.detail
    assert "nothing listens" in refusal.detail
    assert "meshctl join" in refusal.hint


async def test_the_second_address_is_tried(make_node: MakeNode) -> None:
    attic, barn = await make_node("attic").start(), await make_node("barn").start()
    await attic.found()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    live = f"{attic.listen}:{attic.port}"
    line = (await attic.store.issue_invite(60.0, "static", addresses=[dead, live])).invite
    assert line is not None
    await barn.join(line)


async def test_secrets_and_tokens_are_in_no_log_and_no_error(
    make_node: MakeNode, capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as logs:
        attic, barn, cellar = make_node("attic"), make_node("barn"), make_node("cellar")
        for node in (attic, barn, cellar):
            await node.start()
        await attic.found()
        line = await attic.invite()
        await barn.join(line)
        refusal = await _code(cellar.join(line))
        attic.holder.breaks = RuntimeError("inside")
        broken = await _code(barn.peers.confirm(barn.view_of(attic), ["a"]))
    kept = Secrets.load(attic.folder)
    token = invites.decode(line, 0.0).token
    output = capfd.readouterr()
    said = str(logs) + str(refusal.problem()) + str(broken.problem()) + output.out + output.err
    said += repr(attic.store.mesh) + repr(invites.decode(line, 0.0))
    assert "member admitted" in said
    assert any(entry["log_level"] == "error" for entry in logs)
    for secret in (kept.swarm_key.split()[-1], kept.cluster_secret, token, line):
        assert secret not in said


# -- the listener ------------------------------------------------------------------------------------------------------


async def test_a_mistake_inside_is_answered_without_its_trace(pair: Pair) -> None:
    attic, barn = pair
    attic.holder.breaks = RuntimeError("the inside of this node")
    with capture_logs() as logs:
        refusal = await _code(barn.peers.confirm(barn.view_of(attic), ["a"]))
    assert refusal.code is Code.INTERNAL
    assert "inside of this node" not in str(refusal.problem())
    assert [entry["event"] for entry in logs] == ["a peer was not answered"]


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
    await barn.peers.roster(barn.view_of(attic))
    address, port = attic.listen, attic.port
    await attic.server.stop()
    assert attic.server.listening is None
    refusal = await _code(barn.peers.roster(barn.view_of(attic)))
    assert "nothing listens" in refusal.detail
    await attic.server.start(address, port)
    await barn.peers.roster(barn.view_of(attic))


async def test_a_kept_connection_that_ended_is_made_again(pair: Pair) -> None:
    attic, barn = pair
    await barn.peers.beat(barn.view_of(attic), await barn.holder.beat())
    await attic.server.start(attic.listen, attic.port)
    await barn.peers.beat(barn.view_of(attic), await barn.holder.beat())


async def test_strangers_are_few_and_short(make_node: MakeNode) -> None:
    attic = make_node("attic")
    attic.make_server(strangers_most=8, stranger_s=0.5)
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

    async with asyncio.timeout(10):
        first = [await connect("127.0.0.5"), await connect("127.0.0.5")]
        await is_hung_up_on(await connect("127.0.0.5"))  # one address does not get all places
        others = [await connect(f"127.0.0.{n}") for n in (6, 6, 7, 7, 8, 8)]
        await is_hung_up_on(await connect("127.0.0.9"))
        assert not any(reader.at_eof() for reader in first + others)
        for reader in first + others:
            await is_hung_up_on(reader)
    for writer in writers:
        writer.close()
    status, _, _ = await _raw(attic, "GET", "/hello")
    assert status == 200


async def test_what_is_no_http_is_answered_with_a_problem(pair: Pair) -> None:
    attic, _ = pair
    reader, writer = await asyncio.open_connection(attic.listen, attic.port, ssl=tls.stranger_context())
    writer.write(b"\x16\x03 nonsense\r\n\r\n")
    async with asyncio.timeout(5):
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
        async with asyncio.timeout(8):
            refusal = await _code(barn.peers.beat(there, await barn.holder.beat()))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "in time" in refusal.detail


async def test_a_body_that_is_too_long(pair: Pair) -> None:
    attic, barn = pair
    refusal = await _code(barn.peers.confirm(barn.view_of(attic), ["x" * 5000] * 2000))
    assert refusal.code is Code.BAD_REQUEST


async def test_addresses_of_two_kinds_do_not_meet(pair: Pair) -> None:
    _, barn = pair
    barn.address = "127.0.0.2"
    refusal = await _code(barn.peers.challenge("::1", 4010, "0" * 64))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert refusal.detail


async def test_an_answer_without_end_is_cut_off(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshd.mesh import dial

    attic, barn = pair
    monkeypatch.setattr(dial, "ANSWER_MOST", 100)
    refusal = await _code(barn.peers.roster(barn.view_of(attic)))
    assert refusal.code is Code.PEER_UNREACHABLE
    assert "longer than" in refusal.detail


async def test_sessions_of_the_gone_are_closed(pair: Pair) -> None:
    attic, barn = pair
    await barn.peers.roster(barn.view_of(attic))
    session = barn.peers._sessions[attic.fingerprint][1]
    barn.peers.keep_only([])
    await until(lambda: session.closed)


def test_identities_differ(make_node: MakeNode) -> None:
    assert make_node("a").fingerprint != make_node("b").fingerprint
    assert isinstance(make_node("c").identity, Identity)
