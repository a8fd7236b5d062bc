"""Pinning, as it goes well: what is sent, and what is said."""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from tests.meshctl.conftest import Meshctl, Terminal, Writer
from tests.meshctl.fake_meshd import (
    FakeMeshd,
    FormPart,
    entry,
    parse_form,
    pinned,
    reads_itself,
    send,
    stream,
)

FILE = "application/octet-stream"
DIRECTORY = "application/x-directory"
SYMLINK = "application/symlink"


async def test_a_file_is_sent_whole_and_its_copies_are_named(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    content = os.urandom(3_000_000)
    write("minutes.pdf", content)
    meshd.streams("POST", "/v1/pins", *pinned())
    result = await meshctl("pin", "minutes.pdf")
    assert result.code == 0
    assert result.out == "pinned minutes.pdf  300.0 MB  3 copies: attic, cellar, desk\n"
    assert result.err == "  copy on attic  1/3\n  copy on cellar  2/3\n  copy on desk  3/3\n"
    assert parse_form(meshd.last) == [FormPart("minutes.pdf", FILE, content)]
    assert meshd.last.query == {
        "name": "minutes.pdf",
        "files": "1",
        "bytes": "3000000",
        "directory": "0",
        "detach": "0",
    }
    assert meshd.last.headers["Content-Length"] == str(len(meshd.last.body))


async def test_a_directory_keeps_its_tree_its_empty_places_and_its_symlinks(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("club/b.txt", b"b\r\n--")
    write("club/a/ä & “ü” +%.txt", b"umlauts")
    write("club/a/empty", b"")
    (meshctl.cwd / "club" / "hollow").mkdir()
    (meshctl.cwd / "club" / "latest").symlink_to("a/empty")
    (meshctl.cwd / "club" / "dangling").symlink_to("../nowhere")
    meshd.streams("POST", "/v1/pins", *pinned("club", directory=True))
    result = await meshctl("pin", "club/")
    assert result.code == 0
    assert parse_form(meshd.last) == [
        FormPart("club", DIRECTORY, b""),
        FormPart("club/a", DIRECTORY, b""),
        FormPart("club/a/empty", FILE, b""),
        FormPart("club/a/ä & “ü” +%.txt", FILE, b"umlauts"),
        FormPart("club/b.txt", FILE, b"b\r\n--"),
        FormPart("club/dangling", SYMLINK, b"../nowhere"),
        FormPart("club/hollow", DIRECTORY, b""),
        FormPart("club/latest", SYMLINK, b"a/empty"),
    ]
    assert (meshd.last.query["files"], meshd.last.query["bytes"], meshd.last.query["directory"]) == (
        "3",
        "12",
        "1",
    )
    assert "note: 2 symlinks are kept in club as such, not followed\n" in result.err


async def test_an_empty_file_and_an_empty_directory_are_kept_too(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("empty", b"")
    (meshctl.cwd / "hollow").mkdir()
    meshd.streams("POST", "/v1/pins", *pinned())
    assert (await meshctl("pin", "empty", "hollow")).code == 0
    assert parse_form(meshd.asked[0]) == [FormPart("empty", FILE, b"")]
    assert parse_form(meshd.asked[1]) == [FormPart("hollow", DIRECTORY, b"")]
    assert meshd.asked[1].query["files"] == "0"


async def test_each_path_is_one_entry(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("one", b"1")
    write("two", b"22")
    meshd.streams("POST", "/v1/pins", *pinned())
    assert (await meshctl("pin", "one", "two")).code == 0
    assert [asked.query["name"] for asked in meshd.asked] == ["one", "two"]


async def test_a_symlink_given_as_path_is_followed_and_lends_its_name(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("store/v7.txt", b"seven")
    (meshctl.cwd / "current").symlink_to("store/v7.txt")
    (meshctl.cwd / "all").symlink_to("store")
    meshd.streams("POST", "/v1/pins", *pinned())
    assert (await meshctl("pin", "current", "all")).code == 0
    assert parse_form(meshd.asked[0]) == [FormPart("current", FILE, b"seven")]
    assert [part.name for part in parse_form(meshd.asked[1])] == ["all", "all/v7.txt"]


async def test_the_name_can_be_chosen_and_a_dot_has_the_name_of_its_folder(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("x", b"x")
    meshd.streams("POST", "/v1/pins", *pinned())
    assert (await meshctl("pin", "x", "--name", "better name", "--replicas", "all")).code == 0
    assert parse_form(meshd.last)[0].name == "better name"
    assert meshd.last.query["name"] == "better name"
    assert meshd.last.query["replicas"] == "all"
    assert (await meshctl("pin", ".")).code == 0
    assert [part.name for part in parse_form(meshd.last)] == ["here", "here/x"]


async def test_standard_input_is_sent_in_chunks_under_its_name(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    content = os.urandom(2_500_000)
    meshd.streams("POST", "/v1/pins", *pinned("club.sql"))
    result = await meshctl("pin", "-", "--name", "club.sql", stdin=content)
    assert result.code == 0
    assert parse_form(meshd.last) == [FormPart("club.sql", FILE, content)]
    assert meshd.last.headers["Transfer-Encoding"] == "chunked"
    assert "bytes" not in meshd.last.query
    nothing = await meshctl("pin", "-", "--name", "nothing", stdin=b"")
    assert nothing.code == 0
    assert parse_form(meshd.last) == [FormPart("nothing", FILE, b"")]


async def test_fewer_copies_than_asked_is_exit_6_with_the_nodes_that_miss_it(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("minutes.pdf", b"x")
    kept = entry(held=2, copies=[{"node": node, "state": "held"} for node in ("attic", "cellar")])
    missing = [{"node": "desk", "state": "refused", "detail": "its disk is full"}]
    done = {"event": "done", "entry": kept, "degraded": True, "missing": missing}
    meshd.streams("POST", "/v1/pins", *pinned()[:5], done)
    result = await meshctl("pin", "minutes.pdf")
    assert result.code == 6
    assert result.out == "pinned minutes.pdf  300.0 MB  2 of 3 copies: attic, cellar\n"
    assert "\n  none on desk: its disk is full\n" in result.err
    assert result.err.endswith("  try: meshctl ls minutes.pdf   (later), or meshctl status\n")


async def test_more_copies_than_nodes_are_made_when_nodes_join(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("minutes.pdf", b"x")
    for wanted, others in ((5, "the other 2 copies are"), (4, "the other copy is")):
        kept = {"event": "entry", "cid": "bafyentry", "name": "minutes.pdf", "wanted": wanted}
        done = {"event": "done", "entry": entry(wanted=wanted), "degraded": True, "missing": []}
        meshd.streams("POST", "/v1/pins", kept, done)
        result = await meshctl("pin", "minutes.pdf", "--replicas", str(wanted))
        assert result.code == 6
        assert result.out == f"pinned minutes.pdf  300.0 MB  3 of {wanted} copies: attic, cellar, desk\n"
        assert result.err.endswith(
            f"  the mesh has 3 nodes; {others} made when nodes join\n"
            "  try: meshctl invite   (for the owner of one more machine)\n"
        )


async def test_copies_on_every_node_are_counted_by_the_nodes_and_each_that_misses_says_why(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("minutes.pdf", b"x")
    states = [
        ("attic", "unknown", ""),
        ("barn", "unknown", "it is away"),
        ("cellar", "unknown", "timed out"),
        ("desk", "fetching", ""),
        ("shed", "refused", ""),
        ("tower", "missing", "it has no room"),
        ("", "missing", ""),
    ]
    missing = [{"node": node, "state": state, "detail": detail} for node, state, detail in states]
    kept = {"event": "entry", "cid": "bafyentry", "name": "minutes.pdf", "wanted": 9}
    copies = [{"node": "loft", "state": "held"}]
    alone = entry(wanted="all", held=None, copies=copies)
    meshd.streams(
        "POST", "/v1/pins", kept, {"event": "done", "entry": alone, "degraded": True, "missing": missing}
    )
    result = await meshctl("pin", "minutes.pdf", "--replicas", "all")
    assert result.out == "pinned minutes.pdf  300.0 MB  1 of 9 copies: loft\n"
    assert result.err.splitlines()[1:-1] == [
        "  attic is away",
        "  barn is away",
        "  cellar is away: timed out",
        "  not yet on desk: it is on its way there",
        "  none on shed: it refused",
        "  none on tower: it has no room",
        "  none on another node",
        "  1 more when other nodes join",
    ]


async def test_a_detached_pin_says_that_it_goes_on(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("minutes.pdf", b"x")
    kept = entry(held=1, copies=[{"node": "attic", "state": "held"}])
    meshd.streams(
        "POST", "/v1/pins", *pinned()[:3], {"event": "done", "entry": kept, "degraded": True, "missing": []}
    )
    result = await meshctl("pin", "--detach", "minutes.pdf")
    assert result.code == 0
    assert meshd.last.query["detach"] == "1"
    assert result.out == "pinned minutes.pdf  300.0 MB  1 of 3 copies: attic\n"
    assert "made in the background" in result.err
    alone = entry(held=1, wanted=1, copies=[{"node": "attic", "state": "held"}])
    kept_once = {"event": "entry", "cid": "bafyentry", "name": "minutes.pdf", "wanted": 1}
    done = {"event": "done", "entry": alone, "degraded": False, "missing": []}
    meshd.streams("POST", "/v1/pins", kept_once, done)
    result = await meshctl("pin", "--detach", "--replicas", "1", "minutes.pdf")
    assert (result.out, result.err) == ("pinned minutes.pdf  300.0 MB  1 copy: attic\n", "")


async def test_what_the_mesh_has_already_is_pinned_by_its_cid(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.streams("PUT", "/v1/pins/bafyroot", *pinned("found"))
    result = await meshctl("pin", "--cid", "bafyroot", "--name", "found", "--replicas", "2")
    assert result.code == 0
    assert meshd.last.json() == {"name": "found", "replicas": 2, "detach": False}


async def test_json_prints_every_event_and_nothing_else(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    write("x", b"x")
    meshd.streams("POST", "/v1/pins", *pinned())
    result = await meshctl("pin", "x", "--json")
    assert result.documents == pinned()
    assert result.err == ""


async def test_on_a_terminal_the_progress_is_one_line_that_is_rewritten(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, terminal: Terminal
) -> None:
    write("minutes.pdf", b"x" * 2000)
    shown = asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        await send(response, {"event": "progress", "bytes": 500})
        await shown.wait()
        for event in pinned()[1:]:
            await send(response, event)
        return response

    meshd.does("POST", "/v1/pins", slowly)
    running = await meshctl.start("pin", "minutes.pdf", stderr=terminal.device)
    await terminal.shows(r"\r\x1b\[Kminutes\.pdf  500 B of 2\.0 kB  25 %")
    shown.set()
    assert (await running.result()).code == 0
    await terminal.shows(r"\r\x1b\[K  copy on attic  1/3\r\n")


async def test_the_daemon_may_answer_while_it_is_still_being_sent_to(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    content = os.urandom(20_000_000)
    write("big", content)

    @reads_itself
    async def both_ways(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        received = 0
        async for data in request.content.iter_any():
            received += len(data)
            await send(response, {"event": "progress", "bytes": received})
        assert received > len(content)
        for event in pinned("big")[1:]:
            await send(response, event)
        return response

    meshd.does("POST", "/v1/pins", both_ways)
    assert (await meshctl("pin", "big")).code == 0


async def test_memory_does_not_grow_with_the_file(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    with (meshctl.cwd / "huge").open("wb") as file:
        file.truncate(400_000_000)

    @reads_itself
    async def swallow(request: web.Request) -> web.StreamResponse:
        async for _ in request.content.iter_any():
            pass
        response = await stream(request)
        for event in pinned("huge"):
            await send(response, event)
        return response

    meshd.does("POST", "/v1/pins", swallow)
    limit = 96 << 20  # bytes of data, for Python and us together
    meshctl.prefix = ["prlimit", f"--data={limit}", "--"]
    assert (await meshctl("pin", "huge")).code == 0
