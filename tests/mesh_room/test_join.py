"""Joining by invite, against a real issuer: what admits a node, and what does not."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Answer
from meshd.mesh import invites
from meshd.mesh.join_by_invite import join
from meshd.mesh.secrets import Secrets
from meshd.peer.nonces import Nonces
from meshd.wire import ConfirmRequest, Nothing, PeerJoinRequest, verbs
from tests.mesh_room.nodes import Node, raw, refusal_of

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]


async def _request(attic: Node, node: Node, line: str, **other: object) -> PeerJoinRequest:
    invitation = invites.decode(line, node.now())
    nonce = (
        await node.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.CHALLENGE, Nothing())
    ).nonce
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
    return (
        await refusal_of(node.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.JOIN, request))
    ).code


async def test_a_nonce_is_good_once(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    request = await _request(attic, cellar, await attic.invite())
    await cellar.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.JOIN, request)
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
        status, _, _ = await raw(attic, "POST", "/challenge")
        codes.append(status)
    assert codes == [200] * 10 + [409] * 2
    assert (
        await barn.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.CHALLENGE, Nothing())
    ).nonce


@pytest.mark.parametrize("body", [None, {}, [], {"protocol": 1}, {"nonce": "x" * 100_000}])
async def test_nonsense_is_answered(pair: Pair, body: object) -> None:
    attic, _ = pair
    status, answer, _ = await raw(attic, "POST", "/join", body)
    assert status == 400
    assert answer["code"] == "bad-request"
    assert "xxx" not in str(answer)


async def test_used_expired_revoked_foreign(pair: Pair, make_node: MakeNode) -> None:
    attic, barn = pair
    cellar = await make_node("cellar").start()
    used = await attic.invite()
    await cellar.join(used)
    dairy = await make_node("dairy").start()
    assert (await refusal_of(dairy.join(used))).code is Code.INVITE_USED
    brief = await attic.invite(expires_s=60.0)
    attic.now.at += 61  # type: ignore[attr-defined]
    assert (await refusal_of(dairy.join(brief))).code is Code.INVITE_EXPIRED
    slow = await refusal_of(
        join(brief, dairy.joiner(), dairy.identity, dairy.peers, now=lambda: 0.0)
    )  # its clock is behind
    assert slow.code is Code.INVITE_EXPIRED
    revoked = await attic.invite()
    await attic.store.revoke(attic.store.invites()[-1].id)
    assert (await refusal_of(dairy.join(revoked))).code is Code.BAD_INVITE
    own = await attic.invite()
    assert (await refusal_of(attic.join(own))).code is Code.BAD_INVITE
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
    assert (await refusal_of(dairy.join(mixed))).code is Code.BAD_INVITE
    assert (await refusal_of(dairy.join(own[:-5]))).code is Code.BAD_INVITE
    assert dairy.store.mesh is None


async def test_a_name_that_is_taken_leaves_the_invite_good(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    second = await make_node("second").start()
    line = await attic.invite()
    refusal = await refusal_of(second.join(line, name="BARN"))
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
    answers = attic.handlers["POST", "/join"]
    calls: list[Request] = []

    async def loses_the_first(request: Request) -> Answer:
        answer = await answers(request)
        calls.append(request)
        if len(calls) == 1:
            assert attic.server._connections is not None
            for connection in attic.server._connections.connections:
                assert connection.transport is not None
                connection.transport.close()
        return answer

    attic.handlers["POST", "/join"] = loses_the_first
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
        refusal = await refusal_of(cellar.join(line))
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
    assert (await refusal_of(cellar.join(line))).code is Code.BAD_STATE
    assert len(attic.store.members()) == 2
    kept.save(attic.folder)
    await cellar.join(line)


async def test_an_invite_that_names_another_mesh_spends_no_token(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    line = await attic.invite()
    foreign = dataclasses.replace(invites.decode(line, None), mesh_id="0" * 32)
    assert (await refusal_of(cellar.join(invites.encode(foreign)))).code is Code.BAD_INVITE
    assert len(attic.store.members()) == 2
    await cellar.join(line)


async def test_somebody_else_at_the_address_learns_nothing(make_node: MakeNode) -> None:
    attic, impostor, barn = make_node("attic"), make_node("impostor"), make_node("barn")
    for node in (attic, impostor, barn):
        await node.start()
    await attic.found()
    await impostor.found()
    line = (await attic.store.issue_invite(60.0, addresses=[f"{impostor.listen}:{impostor.port}"])).invite
    assert line is not None
    asked: list[object] = []

    async def noted(request: Request) -> Answer:
        asked.append(request)
        raise MeshError(Code.INTERNAL, "cannot answer")

    impostor.handlers = dict.fromkeys(impostor.handlers, noted)
    refusal = await refusal_of(barn.join(line))
    assert refusal.code is Code.DENIED
    assert impostor.fingerprint[:4] in refusal.detail
    assert asked == []


async def test_nobody_there(make_node: MakeNode) -> None:
    attic, barn = await make_node("attic").start(), await make_node("barn").start()
    await attic.found()
    line = await attic.invite()
    where = f"{attic.listen}:{attic.port}"
    await attic.server.stop()
    refusal = await refusal_of(barn.join(line))
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
    line = (await attic.store.issue_invite(60.0, addresses=[dead, live])).invite
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
        refusal = await refusal_of(cellar.join(line))
        attic.holder.breaks = RuntimeError("inside")
        broken = await refusal_of(
            barn.peers.call(barn.view_of(attic), verbs.CONFIRM, ConfirmRequest(cids=["a"]))
        )
    kept = Secrets.load(attic.folder)
    token = invites.decode(line, 0.0).token
    output = capfd.readouterr()
    said = str(logs) + str(refusal.problem()) + str(broken.problem()) + output.out + output.err
    said += repr(attic.store.mesh) + repr(invites.decode(line, 0.0))
    assert "member admitted" in said
    assert any(entry["log_level"] == "error" for entry in logs)
    for secret in (kept.swarm_key.split()[-1], kept.cluster_secret, token, line):
        assert secret not in said
