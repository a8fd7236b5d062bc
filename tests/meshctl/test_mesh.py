"""Starting a mesh, inviting, joining, leaving, and who is in it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.meshctl.conftest import Meshctl, Terminal
from tests.meshctl.fake_meshd import Document, FakeMeshd, mesh, peer

INVITE = "meshd1.eyJtZXNoIjoiYXJjaGl2ZSJ9"


def result_of(created: bool, members: int = 1) -> Document:
    return {"event": "done", "mesh": mesh(members=members), "node": "attic", "created": created}


STEP = {"event": "step", "message": "starting kubo"}


# -- init ------------------------------------------------------------------------------------------------------------


async def test_init_shows_its_steps_and_what_to_type_next(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh", STEP, result_of(True))
    result = await meshctl("init", "--name", "archive")
    assert result.code == 0
    assert result.out == "This node, attic, is the first of the mesh archive.\n"
    assert result.err == "  starting kubo\nTo admit the next node: meshctl invite\n"
    assert meshd.last.json() == {"name": "archive"}


async def test_init_a_second_time_changes_nothing_and_is_no_error(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh", result_of(False))
    result = await meshctl("init")
    assert result.code == 0
    assert result.out == "This node, attic, is in the mesh archive already; nothing was changed.\n"
    assert meshd.last.json() == {"name": "mesh"}
    assert (await meshctl("init", "--json")).documents == [result_of(False)]


async def test_init_that_fails_on_its_way(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    problem = {
        "title": "cannot start kubo",
        "detail": "it is not there",
        "code": "engine-missing",
        "hint": "apt",
    }
    meshd.streams("POST", "/v1/mesh", STEP, {"event": "error", "problem": problem})
    result = await meshctl("init", "--json")
    assert result.code == 1
    assert result.err == "meshctl: cannot start kubo: it is not there\n  try: apt\n"
    assert result.documents == [STEP, {"event": "error", "problem": problem}, problem]


# -- invite ----------------------------------------------------------------------------------------------------------


def invite(**more: Document | str | None) -> Document:
    return {
        "id": "i1",
        "created": 1_700_000_000.0,
        "expires": 1_700_086_400.0,
        "used_by": None,
        "invite": None,
    } | more


async def test_the_invite_alone_goes_to_standard_output(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("POST", "/v1/invites", invite(invite=INVITE))
    result = await meshctl("invite")
    assert result.code == 0
    assert result.out == f"{INVITE}\n"
    assert "until 2023-11-15 22:13" in result.err
    assert "meshctl join" in result.err
    assert "meshctl invite --revoke i1" in result.err
    assert meshd.last.json() == {"expires_s": 86400.0}


@pytest.mark.parametrize(("span", "seconds"), [("30min", 1800), ("90m", 5400), ("2h", 7200), ("3d", 259200)])
async def test_how_long_it_is_good_can_be_said(
    meshctl: Meshctl, meshd: FakeMeshd, span: str, seconds: int
) -> None:
    meshd.answers("POST", "/v1/invites", invite(invite=INVITE))
    assert (await meshctl("invite", "--expires", span)).code == 0
    assert meshd.last.json() == {"expires_s": seconds}


@pytest.mark.parametrize("span", ["", "24", "0h", "-1h", "1y", "h", "1.5h"])
async def test_a_span_that_is_none_is_a_mistake(meshctl: Meshctl, meshd: FakeMeshd, span: str) -> None:
    result = await meshctl("invite", f"--expires={span}")
    assert result.code == 2
    assert "spans look like 30min, 24h or 3d" in result.err
    assert meshd.asked == []


@pytest.mark.parametrize("span", ["31d", "60d", "721h"])
async def test_a_span_that_is_too_long_is_answered_with_the_longest(
    meshctl: Meshctl, meshd: FakeMeshd, span: str
) -> None:
    result = await meshctl("invite", "--expires", span)
    assert result.code == 2
    assert f"{span!r} is too long; 30d is the most" in result.err
    assert "spans look like" not in result.err
    assert meshd.asked == []


async def test_invites_can_be_listed_and_taken_back(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/invites", {"invites": [invite(), invite(id="i2", used_by="desk")]})
    result = await meshctl("invite", "--list")
    assert result.out == (
        "ID  CREATED           EXPIRES           USED BY\n"
        "i1  2023-11-14 22:13  2023-11-15 22:13  -\n"
        "i2  2023-11-14 22:13  2023-11-15 22:13  desk\n"
    )
    meshd.answers("DELETE", "/v1/invites/i1", {})
    result = await meshctl("invite", "--revoke", "i1")
    assert (result.code, result.out) == (0, "The invite i1 admits nobody any more.\n")
    assert (await meshctl("invite", "--revoke", "i9")).code == 4


# -- join ------------------------------------------------------------------------------------------------------------


async def test_join_with_the_line_as_it_was_pasted(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh/join", STEP, result_of(True, members=2))
    result = await meshctl("join", f" {INVITE[:10]}\n {INVITE[10:]}\n", "--name", "attic")
    assert result.code == 0
    assert result.out == "This node, attic, joined the mesh archive, which has 2 members now.\n"
    assert result.err == "  starting kubo\nTo see how it is: meshctl status\n"
    assert meshd.last.json() == {"invite": INVITE, "name": "attic"}
    assert (await meshctl("join", INVITE[:10], INVITE[10:])).code == 0
    assert meshd.last.json() == {"invite": INVITE}


async def test_join_reads_the_line_from_a_pipe(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/mesh/join", result_of(True, members=2))
    assert (await meshctl("join", stdin=f"{INVITE[:9]}\r\n{INVITE[9:]}\n\n".encode())).code == 0
    assert meshd.last.json() == {"invite": INVITE}


async def test_join_asks_for_the_line_on_a_terminal(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.streams("POST", "/v1/mesh/join", result_of(True, members=2))
    running = await meshctl.start("join", stdin=terminal.device, stderr=terminal.device)
    await terminal.shows("Invite: ")
    terminal.type(f"{INVITE[:12]}\n{INVITE[12:]}\n")
    assert (await running.result()).code == 0
    assert meshd.last.json() == {"invite": INVITE}


async def test_join_without_a_line_is_a_mistake(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    nothing = await meshctl("join")
    assert nothing.code == 2
    assert "cannot join without an invite" in nothing.err
    assert meshd.asked == []


async def test_join_by_a_network_shows_the_code_of_each_member(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    code = {"event": "code", "address": "10.144.0.1:4010", "code": "0844 3547 3343"}
    meshd.streams("POST", "/v1/mesh/join", STEP, code, result_of(True, members=2))
    result = await meshctl("join", "8056C2E21C000001", "--name", "barn", "--yes")
    assert result.code == 0
    assert result.err == (
        "  starting kubo\n"
        "  the member at 10.144.0.1:4010 must show this code:\n"
        "      0844 3547 3343\n"
        "To see how it is: meshctl status\n"
    )
    assert meshd.last.json() == {"network": "8056c2e21c000001", "name": "barn", "confirm": False}


async def test_join_by_a_network_asks_nobody_where_there_is_no_terminal(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    result = await meshctl("join", "8056c2e21c000001")
    assert result.code == 2
    assert "there is no terminal on which to ask whether the codes are the same" in result.err
    assert "meshctl join 8056c2e21c000001" in result.err
    assert meshd.asked == []


@pytest.mark.parametrize(("typed", "right"), [("y\n", True), ("n\n", False)])
async def test_whoever_lets_this_node_in_is_confirmed_by_the_person_here(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal, typed: str, right: bool
) -> None:
    member = "ab" * 32
    confirm = {
        "event": "confirm",
        "address": "10.144.0.1:4010",
        "code": "0844 3547 3343",
        "fingerprint": member,
    }
    meshd.streams("POST", "/v1/mesh/join", confirm, result_of(True, members=2))
    meshd.answers("POST", "/v1/mesh/join/confirm", {})
    running = await meshctl.start("join", "8056c2e21c000001", stdin=terminal.device, stderr=terminal.device)
    await terminal.shows(r"is it 0844 3547 3343\?")
    terminal.type(typed)
    result = await running.result()
    assert result.code == 0
    assert meshd.last.json() == {"fingerprint": member, "right": right}


async def test_an_invite_that_is_no_good_says_so(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.refuses(
        "POST", "/v1/mesh/join", 410, code="invite-used", title="cannot join", hint="meshctl invite"
    )
    result = await meshctl("join", INVITE)
    assert (result.code, result.err) == (1, "meshctl: cannot join\n  try: meshctl invite\n")


# -- leave and forget ------------------------------------------------------------------------------------------------


async def test_leave_says_what_goes_and_what_stays(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("DELETE", "/v1/mesh", STEP, {"event": "done"})
    result = await meshctl("leave", "--yes")
    assert result.code == 0
    assert result.out == "This node left the mesh. Its copies are gone; the other nodes keep theirs.\n"
    assert meshd.last.query == {"force": "0", "network": "0"}
    assert (await meshctl("leave", "--yes", "--force")).code == 0
    assert meshd.last.query == {"force": "1", "network": "0"}
    assert (await meshctl("leave", "--yes", "--network")).code == 0
    assert meshd.last.query == {"force": "0", "network": "1"}


async def test_leave_and_forget_ask_on_a_terminal_and_only_yes_is_yes(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.streams("DELETE", "/v1/mesh", {"event": "done"})
    meshd.answers("GET", "/v1/peers", {"peers": [peer("desk")]})
    meshd.answers("DELETE", "/v1/peers/desk", {"name": "desk"})
    for args, question in ((("leave",), "other nodes keep theirs"), (("forget", "desk"), "Forget desk")):
        for answer, code in (("n", 1), ("", 1), ("y", 0)):
            terminal.seen = ""
            running = await meshctl.start(*args, stdin=terminal.device, stderr=terminal.device)
            await terminal.shows(question + r".*\[y/N\]")
            terminal.type(f"{answer}\n")
            assert (await running.result()).code == code
            assert [asked.method for asked in meshd.asked if asked.method != "GET"] == (
                ["DELETE"] if code == 0 else []
            )
        meshd.asked.clear()


async def test_without_a_terminal_they_want_yes(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": [peer("desk")]})
    for args in (("leave",), ("forget", "desk")):
        result = await meshctl(*args)
        assert result.code == 2
        assert "--yes" in result.err
    assert [asked.method for asked in meshd.asked] == ["GET"]


async def test_nobody_is_asked_about_forgetting_a_node_that_is_not_there(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": [peer("attic", this_node=True), peer("desk")]})
    on_terminal: dict[str, Any] = {"stdin": terminal.device}
    for options in (on_terminal, {}):
        result = await (await meshctl.start("forget", "nosuch", **options)).result()
        assert result.code == 4
        assert result.err == "meshctl: cannot forget nosuch: no member has that name\n  try: meshctl peers\n"
        result = await (await meshctl.start("forget", "attic", **options)).result()
        assert (result.code, result.err) == (
            1,
            "meshctl: cannot forget attic: it is this node\n  try: meshctl leave\n",
        )


async def test_forget_says_who_is_gone(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("DELETE", "/v1/peers/desk", {"name": "desk"})
    result = await meshctl("forget", "desk", "--yes", "--force")
    assert (result.code, result.out) == (0, "desk is forgotten.\n")
    assert meshd.last.query == {"force": "1"}
    assert (await meshctl("forget", "nobody", "--yes")).code == 4


# -- peers -----------------------------------------------------------------------------------------------------------


async def test_peers_are_listed_with_this_node_first(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    peers = [
        peer("cellar", reachable=False, last_seen=time.time() - 180, problem="it answers as another node"),
        peer("desk", site="club", accepts=False),
        peer("shed", reachable=False, last_seen=0.0, address=""),
        peer("attic", this_node=True),
    ]
    meshd.answers("GET", "/v1/peers", {"peers": peers})
    result = await meshctl("peers")
    assert result.code == 0
    assert result.out == (
        "NODE    ADDRESS   SEEN                                  FREE  SITE  VERSION\n"
        "attic   10.0.0.1  this node                           5.0 GB  -     0.1.0\n"
        "cellar  10.0.0.1  not reached, last seen 3 min ago    5.0 GB  -     0.1.0\n"
        "desk    10.0.0.1  reachable, 2 ms, takes nothing new  5.0 GB  club  0.1.0\n"
        "shed    -         not reached, never seen                  -  -     0.1.0\n"
    )
    assert result.err == "cellar: it answers as another node\n"
    assert (await meshctl("peers", "--json")).documents == [{"peers": peers}]


async def test_a_node_that_starts_is_not_called_full(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    peers = [
        peer("attic", this_node=True, ready=False, accepts=False),
        peer("cellar", ready=False, accepts=False),
        peer("desk", ready=False, accepts=False, reachable=False, last_seen=0.0),
        peer("shed", accepts=False),
    ]
    meshd.answers("GET", "/v1/peers", {"peers": peers})
    seen = [line[18:].split("  ")[0] for line in (await meshctl("peers")).out.splitlines()]
    assert seen == [
        "SEEN",
        "this node, starting",
        "reachable, 2 ms, starting",
        "not reached, never seen",
        "reachable, 2 ms, takes nothing new",
    ]


async def test_a_problem_that_names_its_node_is_not_given_the_name_again(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    problem = "cannot reach desk (10.0.0.3:4010): nothing listens there"
    meshd.answers("GET", "/v1/peers", {"peers": [peer("desk", reachable=False, problem=problem)]})
    assert (await meshctl("peers")).err == f"{problem}\n"


async def test_a_node_in_no_mesh_has_no_peers(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": []})
    result = await meshctl("peers")
    assert result.code == 0
    assert "meshctl init" in result.err


async def test_a_node_that_has_moved_is_set_to_its_new_address(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    answer = {"name": "desk", "address": "10.0.0.9", "port": 4010}
    meshd.answers("PUT", "/v1/peers/desk/address", answer)
    result = await meshctl("peers", "set", "desk", "desk.lan:4010")
    assert (result.code, result.out) == (0, "desk answers at 10.0.0.9, and is called there from now on.\n")
    assert "meshctl peers" in result.err
    assert (meshd.last.method, meshd.last.json()) == ("PUT", {"address": "desk.lan:4010"})
    assert (await meshctl("peers", "set", "desk", "10.0.0.9", "--json")).documents == [answer]


async def test_an_address_where_another_node_answers_is_refused_with_what_to_type(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.refuses(
        "PUT",
        "/v1/peers/desk/address",
        502,
        code="peer-unreachable",
        title="cannot use '10.0.0.9' as the address of desk",
        detail="cellar answers there",
        hint="meshctl peers set cellar 10.0.0.9:4010",
    )
    result = await meshctl("peers", "set", "desk", "10.0.0.9")
    assert result.code == 1
    assert result.err == (
        "meshctl: cannot use '10.0.0.9' as the address of desk: cellar answers there\n"
        "  try: meshctl peers set cellar 10.0.0.9:4010\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("set",), "which node, and where it is"),
        (("set", "desk"), "where desk is"),
        (("move", "desk", "10.0.0.9"), "invalid choice: 'move'"),
        (("set", "desk", "10.0.0.9", "more"), "unrecognized arguments: more"),
        (("set", "..", "10.0.0.9"), "that is no name"),
    ],
)
async def test_half_an_address_is_no_command(
    meshctl: Meshctl, meshd: FakeMeshd, words: tuple[str, ...], told: str
) -> None:
    result = await meshctl("peers", *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert meshd.asked == []
