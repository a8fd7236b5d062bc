"""Nodes that ask to join, at the member: what it believes, what it refuses, and what a person can do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from meshd.errors import Code, MeshError
from meshd.mesh import sas
from meshd.mesh.approval import Approval
from meshd.mesh.secrets import Secrets
from meshd.peer.nonces import Nonces
from meshd.wire import AskingId, JoinRequestView, Reveal, verbs
from tests.mesh_room.nodes import Node, raw, refusal_of
from tests.mesh_room.strangers import asks, begin, look, reveal

MakeNode = Callable[..., Node]
Pair = tuple[Node, Node]
NONCE, OTHER = "1" * 64, "2" * 64


class Monotonic:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def seen() -> list[JoinRequestView]:
    """What people were told of."""
    return []


@pytest.fixture
async def attic(make_node: MakeNode, monotonic: Monotonic, seen: list[JoinRequestView]) -> Node:
    """The one member of a mesh; time stands still there unless the test turns it."""
    node = make_node("attic")
    approval = Approval(
        node.store,
        lambda: Secrets.load(node.folder),
        on_asked=seen.append,
        on_joined=node.joined.append,
        monotonic=monotonic,
        now=node.now,
    )
    node.make_server(approval=approval, ask_nonces=Nonces(per_address=100))
    await node.start()
    await node.found()
    return node


@pytest.fixture
async def barn(make_node: MakeNode, attic: Node) -> Node:
    """A node on the network that is no member."""
    return await make_node("barn").start()


def _waiting(node: Node) -> list[str]:
    return [view.name for view in node.approval.views()]


def _code(node: Node) -> str:
    (view,) = node.approval.views()
    return view.code


# -- what it believes --------------------------------------------------------------------------------------------------


async def test_a_person_sees_a_request_once_its_key_was_proved(
    attic: Node, barn: Node, seen: list[JoinRequestView]
) -> None:
    asked = await begin(barn, attic, NONCE)
    assert _waiting(attic) == []
    assert seen == []
    assert (await reveal(barn, attic, asked, NONCE)).state == "waiting"
    assert seen == attic.approval.views()
    (view,) = seen
    assert view.code == sas.code(attic.fingerprint, asked.nonce, barn.fingerprint, NONCE, barn.joiner())
    assert (view.since, view.until) == (attic.now(), attic.now() + 3600)
    assert asked.id not in str(view)


async def test_a_reveal_of_another_nonce_ends_the_request(attic: Node, barn: Node) -> None:
    asked = await begin(barn, attic, NONCE)
    refusal = await refusal_of(reveal(barn, attic, asked, OTHER))
    assert refusal.code is Code.DENIED
    assert "another number" in refusal.detail
    assert (await refusal_of(reveal(barn, attic, asked, NONCE))).code is Code.NOT_FOUND
    assert _waiting(attic) == []


@pytest.mark.parametrize("signature", ["00" * 64, "no hex", "", "00" * 63])
async def test_a_wrong_signature_ends_the_request(attic: Node, barn: Node, signature: str) -> None:
    asked = await begin(barn, attic, NONCE)
    refusal = await refusal_of(reveal(barn, attic, asked, NONCE, signature=signature))
    assert refusal.code is Code.DENIED
    assert "signature" in refusal.detail
    assert (await refusal_of(look(barn, attic, asked))).code is Code.NOT_FOUND


async def test_nobody_can_ask_with_anothers_certificate(attic: Node, barn: Node, make_node: MakeNode) -> None:
    shed = await make_node("shed").start()
    asked = await begin(shed, attic, NONCE, certificate=barn.identity.certificate)
    assert (await refusal_of(reveal(shed, attic, asked, NONCE))).code is Code.DENIED
    assert _waiting(attic) == []


async def test_what_was_signed_is_what_was_asked(attic: Node, barn: Node) -> None:
    asked = await begin(barn, attic, NONCE, address="10.9.9.9")
    refusal = await refusal_of(reveal(barn, attic, asked, NONCE))  # signs its own document
    assert refusal.code is Code.DENIED
    assert "signature" in refusal.detail


async def test_a_reveal_is_good_for_its_own_request_only(attic: Node, barn: Node) -> None:
    first = await begin(barn, attic, NONCE)
    signed = sas.statement(attic.fingerprint, first.nonce, NONCE, barn.joiner())
    signature = barn.identity.sign(signed).hex()
    await reveal(barn, attic, first, NONCE)
    second = await begin(barn, attic, NONCE)
    replayed = Reveal(id=second.id, nonce=NONCE, signature=signature)
    refusal = await refusal_of(
        barn.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.REVEAL, replayed)
    )
    assert refusal.code is Code.DENIED
    assert (await look(barn, attic, first)).state == "waiting"


async def test_the_same_reveal_again_changes_nothing(
    attic: Node, barn: Node, seen: list[JoinRequestView]
) -> None:
    asked = await begin(barn, attic, NONCE)
    await reveal(barn, attic, asked, NONCE)
    assert (await reveal(barn, attic, asked, NONCE)).state == "waiting"
    assert len(seen) == len(attic.approval.views()) == 1
    await attic.approval.approve("barn", _code(attic))
    assert (await reveal(barn, attic, asked, NONCE)).state == "admitted"


async def test_a_claim_to_a_key_does_not_push_its_request_out(
    attic: Node, barn: Node, make_node: MakeNode
) -> None:
    asked = await asks(barn, attic)
    shed = await make_node("shed").start()
    claimed = await begin(shed, attic, NONCE, certificate=barn.identity.certificate, name="barn")
    await refusal_of(reveal(shed, attic, claimed, NONCE))
    assert (await look(barn, attic, asked)).state == "waiting"
    newer = await asks(barn, attic)
    assert (await refusal_of(look(barn, attic, asked))).code is Code.NOT_FOUND
    assert (await look(barn, attic, newer)).state == "waiting"


async def test_nobody_is_heard_where_there_is_no_mesh(make_node: MakeNode, pair: Pair) -> None:
    lonely, shed = await make_node("lonely").start(), await make_node("shed").start()
    assert (await refusal_of(begin(shed, lonely, NONCE))).code is Code.NO_MESH
    _, gone = pair
    asked = await asks(shed, gone)
    await gone.store.forget(gone.fingerprint, by=gone.fingerprint)
    assert _waiting(gone) == []
    assert (await refusal_of(look(shed, gone, asked))).code is Code.NO_MESH
    assert (await refusal_of(begin(shed, gone, NONCE))).code is Code.NO_MESH


@pytest.mark.parametrize("path", ["/ask", "/ask/reveal", "/ask/look", "/ask/withdraw"])
@pytest.mark.parametrize("body", [None, {}, [], {"id": "x"}, {"id": "0" * 64, "more": "x" * 100_000}])
async def test_nonsense_is_answered(attic: Node, path: str, body: object) -> None:
    status, answer, _ = await raw(attic, "POST", path, body)
    assert status == 400
    assert answer["code"] == "bad-request"
    assert "xxx" not in str(answer)


async def test_an_id_that_nobody_has_opens_nothing(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    await attic.approval.approve("barn", _code(attic))
    guess = {"id": "0" * 64}
    assert (await raw(attic, "POST", "/ask/look", guess))[0] == 404
    assert (await raw(attic, "POST", "/ask/withdraw", guess))[0] == 200
    assert (await look(barn, attic, asked)).admitted is not None


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"name": "../../etc"}, Code.BAD_NAME),
        ({"address": "not an address"}, Code.BAD_REQUEST),
        ({"certificate": "x"}, Code.BAD_REQUEST),
        ({"name": "ATTIC"}, Code.NAME_TAKEN),
    ],
)
async def test_a_node_that_cannot_be_a_member_is_told_at_once(
    attic: Node, barn: Node, said: dict[str, object], code: Code
) -> None:
    assert (await refusal_of(begin(barn, attic, NONCE, **said))).code is code


async def test_a_node_of_another_protocol_is_told_to_be_updated(attic: Node, barn: Node) -> None:
    body = {"protocol": 7, "commitment": NONCE, "joiner": barn.joiner().model_dump()}
    status, answer, _ = await raw(attic, "POST", "/ask", body)
    assert (status, answer["code"]) == (400, "bad-request")
    assert "protocol 7" in str(answer["detail"])
    assert "update meshd" in str(answer["hint"])


# -- how many and for how long -----------------------------------------------------------------------------------------


async def test_a_flood_from_one_address_is_bounded_and_members_are_answered(
    pair: Pair, make_node: MakeNode
) -> None:
    attic, barn = pair
    flooder = await make_node("flooder").start()
    outcomes = await asyncio.gather(*(asks(flooder, attic) for _ in range(40)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, MeshError)]
    assert len(outcomes) - len(refused) <= 10
    assert {error.code for error in refused} <= {Code.BUSY, Code.PEER_UNREACHABLE}
    assert len(attic.approval.views()) <= 3
    there = barn.view_of(attic)
    assert (
        await barn.peers.call(there, verbs.BEAT, await barn.holder.beat())
    ).fingerprint == attic.fingerprint
    other = await make_node("other").start()
    await asks(other, attic)
    assert "other" in _waiting(attic)


async def test_requests_are_rationed_and_invites_go_on(pair: Pair, make_node: MakeNode) -> None:
    attic, _ = pair
    cellar = await make_node("cellar").start()
    for _ in range(10):
        asked = await begin(cellar, attic, NONCE)
        await cellar.peers.call_at(
            attic.listen, attic.port, attic.fingerprint, verbs.WITHDRAW, AskingId(id=asked.id)
        )
    assert (await refusal_of(begin(cellar, attic, NONCE))).code is Code.BUSY
    await cellar.join(await attic.invite())


async def test_a_request_ends_when_its_node_does_not_look(
    attic: Node, barn: Node, monotonic: Monotonic
) -> None:
    asked = await asks(barn, attic)
    monotonic.at += 29
    await look(barn, attic, asked)
    monotonic.at += 29
    assert _waiting(attic) == ["barn"]
    monotonic.at += 1
    assert _waiting(attic) == []
    assert (await refusal_of(attic.approval.approve("barn", "0"))).code is Code.NOT_FOUND
    assert (await refusal_of(look(barn, attic, asked))).code is Code.NOT_FOUND


async def test_withdrawn(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    await barn.peers.call_at(
        attic.listen, attic.port, attic.fingerprint, verbs.WITHDRAW, AskingId(id=asked.id)
    )
    assert _waiting(attic) == []
    await barn.peers.call_at(
        attic.listen, attic.port, attic.fingerprint, verbs.WITHDRAW, AskingId(id=asked.id)
    )


# -- what a person does ------------------------------------------------------------------------------------------------


async def test_three_wrong_codes_end_a_request(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    right = _code(attic)
    wrong = "0000 0000 0000" if right != "0000 0000 0000" else "1111 1111 1111"
    for _ in range(2):
        refusal = await refusal_of(attic.approval.approve("barn", wrong))
        assert refusal.code is Code.DENIED
        assert refusal.detail == "that is not the code of this request"
        assert (await look(barn, attic, asked)).state == "waiting"
    await refusal_of(attic.approval.approve("barn", ""))
    assert (await refusal_of(attic.approval.approve("barn", right))).code is Code.NOT_FOUND
    assert (await refusal_of(look(barn, attic, asked))).code is Code.NOT_FOUND
    assert attic.store.peers() == []


async def test_a_person_who_approves_twice_is_told_the_same(attic: Node, barn: Node) -> None:
    await asks(barn, attic)
    code = _code(attic)
    first, second = await asyncio.gather(
        attic.approval.approve("barn", code.replace(" ", "")),
        attic.approval.approve("barn", f" {code} "),
    )
    assert first == second == await attic.approval.approve("BARN", code)
    assert len(attic.joined) == 1


async def test_an_answer_can_be_had_for_ten_minutes(attic: Node, barn: Node, monotonic: Monotonic) -> None:
    asked = await asks(barn, attic)
    await attic.approval.approve("barn", _code(attic))
    monotonic.at += 599
    admitted = (await look(barn, attic, asked)).admitted
    assert admitted is not None
    assert admitted.cluster_secret == Secrets.load(attic.folder).cluster_secret
    monotonic.at += 1
    assert (await refusal_of(look(barn, attic, asked))).code is Code.NOT_FOUND


async def test_a_denied_key_waits_ten_minutes(attic: Node, barn: Node, monotonic: Monotonic) -> None:
    asked = await asks(barn, attic)
    assert attic.approval.deny("barn").name == "barn"
    assert (await look(barn, attic, asked)).state == "denied"
    assert (await refusal_of(begin(barn, attic, NONCE, name="another"))).code is Code.DENIED
    assert (await refusal_of(attic.approval.approve("barn", "0"))).code is Code.NOT_FOUND
    monotonic.at += 600
    await asks(barn, attic)


async def test_admitted_means_written(attic: Node, barn: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshd.mesh import state

    asked = await asks(barn, attic)
    code = _code(attic)

    def cut(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(state, "write", cut)
        assert (await refusal_of(attic.approval.approve("barn", code))).code is Code.BAD_STATE
    assert (await look(barn, attic, asked)).state == "waiting"
    assert attic.joined == []
    await attic.approval.approve("barn", code)
    assert (await look(barn, attic, asked)).state == "admitted"
    again = type(attic.store)(attic.folder, attic.fingerprint)
    assert again.by_fingerprint(barn.fingerprint) == attic.view_of(barn)


async def test_without_secrets_nobody_is_admitted(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    code = _code(attic)
    kept = Secrets.load(attic.folder)
    Secrets.erase(attic.folder)
    assert (await refusal_of(attic.approval.approve("barn", code))).code is Code.BAD_STATE
    assert attic.store.peers() == []
    kept.save(attic.folder)
    await attic.approval.approve("barn", code)
    assert (await look(barn, attic, asked)).state == "admitted"


async def test_a_person_who_goes_away_does_not_lose_the_admission(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    apply, writing = attic.store._apply, asyncio.Event()

    async def tells(change: Any) -> Any:
        writing.set()
        return await apply(change)

    attic.store._apply = tells  # type: ignore[method-assign]
    approving = asyncio.create_task(attic.approval.approve("barn", _code(attic)))
    await asyncio.wait_for(writing.wait(), 30)
    approving.cancel()
    assert isinstance((await asyncio.gather(approving, return_exceptions=True))[0], asyncio.CancelledError)
    await attic.store.settled()
    assert (await look(barn, attic, asked)).state == "admitted"
    assert _waiting(attic) == []


async def test_nobody_takes_a_request_back_while_its_admission_is_written(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    apply, writing, go_on = attic.store._apply, asyncio.Event(), asyncio.Event()

    async def waits(change: Any) -> Any:
        writing.set()
        await go_on.wait()
        return await apply(change)

    attic.store._apply = waits  # type: ignore[method-assign]
    approving = asyncio.create_task(attic.approval.approve("barn", _code(attic)))
    await asyncio.wait_for(writing.wait(), 30)
    assert (await look(barn, attic, asked)).state == "waiting"
    with pytest.raises(MeshError, match="no node of that id or name"):
        attic.approval.deny("barn")
    await barn.peers.call_at(
        attic.listen, attic.port, attic.fingerprint, verbs.WITHDRAW, AskingId(id=asked.id)
    )
    go_on.set()
    assert (await asyncio.wait_for(approving, 30)).name == "barn"
    assert (await look(barn, attic, asked)).state == "admitted"


async def test_a_node_that_was_forgotten_while_it_waited(attic: Node, barn: Node) -> None:
    asked = await asks(barn, attic)
    code = _code(attic)
    await attic.store.admit_asked(barn.joiner())
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    assert (await refusal_of(look(barn, attic, asked))).code is Code.FORGOTTEN
    assert _waiting(attic) == []
    refusal = await refusal_of(attic.approval.approve("barn", code))
    assert refusal.code is Code.FORGOTTEN
    assert "that machine" in refusal.hint
    assert attic.store.peers() == []


async def test_ids_nonces_and_secrets_are_in_no_log_and_no_error(
    attic: Node, barn: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as logs:
        asked = await begin(barn, attic, NONCE)
        await reveal(barn, attic, asked, NONCE)
        code = _code(attic)
        wrong = await refusal_of(attic.approval.approve("barn", "0"))
        await attic.approval.approve("barn", code)
        await look(barn, attic, asked)
        denied = await refusal_of(reveal(barn, attic, asked, OTHER))
    output = capfd.readouterr()
    said = str(logs) + str(wrong.problem()) + str(denied.problem()) + output.out + output.err
    assert "a node asks to join" in said
    assert "member admitted" in said
    kept = Secrets.load(attic.folder)
    for secret in (asked.id, asked.nonce, NONCE, code, kept.cluster_secret, kept.swarm_key.split()[-1]):
        assert secret not in said
