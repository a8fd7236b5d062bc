"""On a ZeroTier network: who asks to join, and who is let in."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.meshctl.asking import CODE, EVIL, NODE, STEP, harmless, on_network, request
from tests.meshctl.conftest import Meshctl, Terminal
from tests.meshctl.fake_meshd import Document, FakeMeshd

QUESTION = "Does the other machine show the same code?"

# -- who asks ----------------------------------------------------------------------------------------------------------------


async def test_who_asks_is_listed_with_what_he_waits_for_and_his_code(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/requests", {"requests": [request(), on_network()], "why_no_network": ""})
    result = await meshctl("requests")
    assert result.code == 0
    head, mesh_row, network_row = (line.split("  ") for line in result.out.splitlines())
    assert [c.strip() for c in head if c] == ["ID", "NODE", "WAITS FOR", "CODE", "SINCE"]
    assert [c.strip() for c in mesh_row if c][:4] == ["3fa91c", "barn (10.144.0.2)", "the mesh", CODE]
    assert [c.strip() for c in network_row if c] == [NODE, NODE, "the network", "-", "-"]
    assert result.err == "To let one in: meshctl approve ID\n"


async def test_machines_that_wait_for_the_network_are_told_apart(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    """By where they are and since when; and a member that was taken off it by its name."""
    put_off = on_network(id="b" * 10, node="b" * 10, name="cellar", member=True, since=time.time() - 600)
    new = on_network(address="203.0.113.7", since=time.time() - 40)
    meshd.answers("GET", "/v1/requests", {"requests": [new, put_off], "why_no_network": ""})
    _, first, second = (await meshctl("requests")).out.splitlines()
    assert first.split("  ")[1] == f"{NODE} (203.0.113.7)"
    assert re.search(r" [45]\d s ago$", first), "a busy machine takes some seconds until it is printed"
    assert second.split("  ")[1] == "cellar, a member"
    assert second.endswith("10 min ago")


async def test_that_nobody_asks_is_said(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/requests", {"requests": [], "why_no_network": ""})
    result = await meshctl("requests")
    assert (result.code, result.out, result.err) == (0, "", "Nobody asks to be let in.\n")


async def test_who_waits_on_a_network_that_cannot_be_seen_is_not_passed_over(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    why = "cannot see or change who is on the ZeroTier network: this node has no API token for it"
    meshd.answers("GET", "/v1/requests", {"requests": [], "why_no_network": why})
    result = await meshctl("requests")
    assert result.code == 0
    assert f"Who waits on the network is not known here: {why}" in result.err


async def test_a_node_can_be_denied(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("DELETE", "/v1/requests/3fa91c", request())
    result = await meshctl("requests", "--deny", "3fa91c")
    assert (result.code, result.err) == (0, "")
    assert result.out == "barn was told no, and may not ask again for ten minutes.\n"
    assert (await meshctl("requests", "--deny", "3fa91c", "--json")).documents == [request()]
    assert (await meshctl("requests", "--deny", "nobody")).code == 4


async def test_a_name_that_would_drive_the_terminal_is_harmless(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    evil = request(id=EVIL, name=EVIL, address=EVIL, code=EVIL, node=EVIL)
    meshd.answers("GET", "/v1/requests", {"requests": [evil, on_network(name=EVIL)], "why_no_network": EVIL})
    meshd.answers("DELETE", "/v1/requests/3fa91c", evil)
    result = await meshctl("requests")
    harmless(result)
    assert len(result.out.splitlines()) == 3
    harmless(await meshctl("requests", "--deny", "3fa91c"))


# -- letting one in ----------------------------------------------------------------------------------------------------------


def may_approve(meshd: FakeMeshd, ref: str = NODE, **more: Any) -> None:
    """A member that authorizes, shows, and admits."""
    meshd.streams(
        "POST", f"/v1/requests/{ref}/authorize", STEP, {"event": "done", "request": request(**more)}
    )
    meshd.answers("POST", "/v1/requests/3fa91c/approve", {"name": "barn", "fingerprint": "SHA256:barn"})


def approvals(meshd: FakeMeshd) -> list[Document]:
    """The codes with which the daemon was told to admit."""
    return [asked.json() for asked in meshd.asked if asked.path.endswith("/approve")]


async def test_a_person_who_says_that_the_codes_are_the_same_lets_it_in(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    may_approve(meshd)
    running = await meshctl.start("approve", NODE, stdin=terminal.device, stderr=terminal.device)
    await terminal.shows(f"barn at 10.144.0.2 asks to join. Its screen must show this code:\r?\n +{CODE}")
    await terminal.shows(QUESTION.replace("?", r"\?"))
    assert approvals(meshd) == []  # nobody before somebody said yes
    terminal.type("y\n")
    result = await running.result()
    assert (result.code, result.out) == (0, "barn is a member of the mesh now.\n")
    assert approvals(meshd) == [{"code": CODE}]


@pytest.mark.parametrize("answer", ["n\n", "\n", "0844 3547 3343\n", "\x04"])
async def test_whoever_does_not_say_yes_lets_nobody_in(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal, answer: str
) -> None:
    may_approve(meshd)
    running = await meshctl.start("approve", NODE, stdin=terminal.device, stderr=terminal.device)
    await terminal.shows(QUESTION.replace("?", r"\?"))
    terminal.type(answer)
    assert (await running.result()).code == 1
    await terminal.shows(
        "cannot let barn in: you did not say that the codes are the same; nobody was admitted"
    )
    await terminal.shows("meshctl requests --deny 3fa91c")
    assert approvals(meshd) == []


async def test_without_a_terminal_the_code_must_be_typed(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    may_approve(meshd)
    result = await meshctl("approve", NODE, stdin=b"y\n")
    assert result.code == 2
    assert "there is no terminal on which to ask whether the codes are the same" in result.err
    assert "try: meshctl approve 3fa91c --code CODE (as the other machine shows it)" in result.err
    assert approvals(meshd) == []


async def test_a_code_that_was_typed_is_compared_by_the_daemon_and_nothing_is_asked(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    may_approve(meshd)
    result = await meshctl("approve", NODE, "--code", "0844-3547 3343")
    assert (result.code, result.out) == (0, "barn is a member of the mesh now.\n")
    assert QUESTION not in result.err
    assert approvals(meshd) == [{"code": "0844-3547 3343"}]


async def test_a_wrong_code_is_refused_as_the_daemon_says(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    may_approve(meshd)
    meshd.refuses(
        "POST",
        "/v1/requests/3fa91c/approve",
        403,
        code="denied",
        title="cannot admit barn",
        detail="that is not the code of this request",
        hint="meshctl requests",
    )
    result = await meshctl("approve", NODE, "--code", "1")
    assert result.code == 5
    assert result.err.endswith(
        "meshctl: cannot admit barn: that is not the code of this request\n  try: meshctl requests\n"
    )


async def test_no_code_at_all_is_not_the_right_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    """As of a variable that is empty in somebody's script."""
    may_approve(meshd)
    await meshctl("approve", NODE, "--code", "")
    assert approvals(meshd) == [{"code": ""}]


async def test_a_member_that_may_be_on_the_network_again_needs_no_code(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.streams("POST", f"/v1/requests/{NODE}/authorize", STEP, {"event": "done", "member": "barn"})
    result = await meshctl("approve", NODE)
    assert (result.code, result.out) == (0, "barn is a member, and may be on the network now.\n")
    assert approvals(meshd) == []


async def test_a_network_that_cannot_be_changed_is_told_before_anything_is_asked(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    problem = {"code": "denied", "title": "cannot change it", "detail": "no token", "hint": "its admin page"}
    meshd.streams("POST", f"/v1/requests/{NODE}/authorize", STEP, {"event": "error", "problem": problem})
    result = await meshctl("approve", NODE, "--code", CODE)
    assert result.code == 5
    assert result.err.endswith("meshctl: cannot change it: no token\n  try: its admin page\n")
    assert approvals(meshd) == []


async def test_who_is_let_in_under_an_evil_name_does_not_drive_the_terminal(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    may_approve(meshd, name=EVIL, address=EVIL, code=EVIL)
    meshd.answers("POST", "/v1/requests/3fa91c/approve", {"name": EVIL})
    harmless(await meshctl("approve", NODE))
    harmless(await meshctl("approve", NODE, "--code", CODE))
    meshd.streams("POST", f"/v1/requests/{NODE}/authorize", {"event": "done", "member": EVIL})
    harmless(await meshctl("approve", NODE))


async def test_a_script_gets_one_document(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    may_approve(meshd)
    result = await meshctl("approve", NODE, "--code", CODE, "--json")
    assert result.documents == [{"name": "barn", "fingerprint": "SHA256:barn"}]
