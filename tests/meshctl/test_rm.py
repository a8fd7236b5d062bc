"""Removing, the trash, and the way back."""

from __future__ import annotations

import asyncio
import signal
import time

from aiohttp import web

from tests.meshctl.conftest import Meshctl
from tests.meshctl.fake_meshd import Document, FakeMeshd, entry, pinned, send, stream

PIN = "/v1/pins/minutes.pdf"


def removed(*nodes: tuple[str, str, str], until: float | None = 1_702_600_000.0) -> Document:
    outcomes = [{"node": node, "state": state, "detail": detail} for node, state, detail in nodes]
    return {"entry": entry(), "nodes": outcomes, "restore_until": until}


async def test_it_says_where_it_is_in_the_trash_and_until_when(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    answer = removed(("attic", "trashed", ""), ("cellar", "trashed", ""), ("desk", "unreachable", ""))
    meshd.answers("DELETE", PIN, answer)
    result = await meshctl("rm", "minutes.pdf")
    assert result.code == 0
    assert result.out == (
        "removed minutes.pdf; in the trash on attic, cellar until 2023-12-15 00:26: meshctl restore minutes.pdf\n"
    )
    assert result.err == "  desk could not be reached and will do it when it is back\n"
    assert meshd.last.query == {"now": "0", "force": "0"}
    assert (await meshctl("rm", "minutes.pdf", "--json")).documents == [answer]


async def test_now_says_who_let_go_and_is_exit_6_if_someone_did_not(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("DELETE", PIN, removed(("attic", "released", ""), ("desk", "released", ""), until=None))
    result = await meshctl("rm", "--now", "minutes.pdf")
    assert (result.code, result.out, result.err) == (0, "removed minutes.pdf; gone from attic, desk\n", "")
    assert meshd.last.query == {"now": "1", "force": "0"}
    answer = removed(("attic", "released", ""), ("desk", "unreachable", "timed out"), until=None)
    meshd.answers("DELETE", PIN, answer)
    result = await meshctl("rm", "--now", "minutes.pdf")
    assert result.code == 6
    assert result.out == "removed minutes.pdf; gone from attic\n"
    assert result.err == (
        "meshctl: cannot free minutes.pdf everywhere now:\n"
        "  desk could not be reached: timed out\n"
        "  try: meshctl peers   (what stays in a node's trash goes when its window is over)\n"
    )
    answer = removed(("cellar", "refused", "it is still in the pinset"), ("shed", "trashed", ""), until=None)
    meshd.answers("DELETE", PIN, answer)
    result = await meshctl("rm", "--now", "minutes.pdf")
    assert (result.code, result.out) == (6, "removed minutes.pdf; no node let go of it yet\n")
    assert "\n  cellar refused: it is still in the pinset\n  shed keeps it in its trash\n" in result.err


async def test_a_refusal_of_the_last_copy_shows_the_way(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    title = "cannot remove minutes.pdf"
    meshd.refuses("DELETE", PIN, 409, code="last-copy", title=title, hint="meshctl rm --force minutes.pdf")
    result = await meshctl("rm", "minutes.pdf")
    assert result.code == 1
    assert result.err == f"meshctl: {title}\n  try: meshctl rm --force minutes.pdf\n"
    meshd.answers("DELETE", PIN, removed())
    assert (await meshctl("rm", "--force", "minutes.pdf")).code == 0
    assert meshd.last.query["force"] == "1"


async def test_one_that_fails_does_not_keep_the_others(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("DELETE", PIN, removed(("attic", "trashed", "")))
    result = await meshctl("rm", "nothing", "minutes.pdf")
    assert result.code == 4
    assert result.out.startswith("removed minutes.pdf")
    assert "cannot find /v1/pins/nothing" in result.err
    documents = (await meshctl("rm", "minutes.pdf", "nothing", "--json")).documents
    assert [document.get("code") for document in documents] == [None, "not-found"]


async def test_ctrl_c_does_not_promise_what_it_cannot_know(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        asked.set()
        await over.wait()
        return web.Response()

    meshd.does("DELETE", PIN, never)
    running = await meshctl.start("rm", "minutes.pdf")
    await asked.wait()
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert (
        "cannot tell whether minutes.pdf is removed: interrupted\n  try: meshctl ls minutes.pdf\n"
        in result.err
    )


async def test_the_trash_says_how_long_things_stay(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/trash", {"entries": []})
    assert (await meshctl("trash")).err == "The trash is empty.\n"
    thrown = entry("photos", directory=True) | {
        "removed": 1_700_000_000.0,
        "removed_by": "desk",
        "expires": time.time() + 29.9 * 86400,
    }
    meshd.answers("GET", "/v1/trash", {"entries": [thrown]})
    result = await meshctl("trash")
    assert result.code == 0
    assert result.out == (
        "NAME         SIZE  OWNER  REMOVED           BY    STAYS FOR\n"
        "photos/  300.0 MB  attic  2023-11-14 22:13  desk  30 days\n"
    )
    assert (await meshctl("trash", "--json")).documents == [{"entries": [thrown]}]


async def test_restoring_shows_the_copies_as_they_come(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("POST", "/v1/trash/minutes.pdf%402/restore", *pinned()[2:])
    result = await meshctl("restore", "minutes.pdf@2")
    assert result.code == 0
    assert result.out == "restored minutes.pdf  300.0 MB  3 copies: attic, cellar, desk\n"
    assert "  copy on desk  3/3\n" in result.err
    assert (await meshctl("restore", "nothing")).code == 4


async def test_what_is_not_in_the_trash_is_to_be_looked_for_there(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    path = "/v1/trash/minutes.pdf/restore"
    problem = {"code": "not-found", "title": "cannot find minutes.pdf", "hint": "meshctl ls"}
    meshd.streams("POST", path, {"event": "error", "problem": problem})
    result = await meshctl("restore", "minutes.pdf", "--json")
    assert (result.code, result.err) == (
        4,
        "meshctl: cannot find minutes.pdf\n  try: meshctl trash\n",
    )
    assert result.documents[-1]["hint"] == "meshctl trash"
    for told in ({"hint": "meshctl peers"}, {"code": "not-ready", "hint": "meshctl ls"}):
        meshd.streams("POST", path, {"event": "error", "problem": problem | told})
        assert (await meshctl("restore", "minutes.pdf")).err.endswith(f"  try: {told['hint']}\n")


async def test_ctrl_c_while_restoring(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    over = asyncio.Event()

    async def stay(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        for event in pinned()[2:4]:
            await send(response, event)
        await over.wait()
        return response

    meshd.does("POST", "/v1/trash/minutes.pdf/restore", stay)
    running = await meshctl.start("restore", "minutes.pdf")
    assert running.process.stderr is not None
    assert await running.process.stderr.readline() == b"  copy on attic  1/3\n"
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert "minutes.pdf is back and its copies are made in the background" in result.err
