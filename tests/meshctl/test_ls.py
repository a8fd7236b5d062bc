"""Listing: the mesh, one entry, and what is inside one."""

from __future__ import annotations

from aiohttp import web

from tests.meshctl.conftest import Meshctl
from tests.meshctl.fake_meshd import Document, FakeMeshd, entry


def entries(*found: Document, after: str | None = None, total: int | None = None) -> Document:
    return {"entries": list(found), "total": len(found) if total is None else total, "next": after}


async def test_entries_are_shown_with_size_copies_owner_and_time(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    found = [
        entry(),
        entry(version=2, size=17, held=1),
        entry("photos", directory=True, files=1204, wanted="all", held=None, owner="cellar"),
        entry("写真", size=999_960),
    ]
    meshd.answers("GET", "/v1/pins", entries(*found))
    result = await meshctl("ls")
    assert result.code == 0
    assert result.err == ""
    assert result.out == (
        "NAME               SIZE  FILES  COPIES  OWNER   WHEN\n"
        "minutes.pdf    300.0 MB         3/3     attic   2023-11-14 22:13\n"
        "minutes.pdf@2      17 B         1/3     attic   2023-11-14 22:13\n"
        "photos/        300.0 MB   1204  ?/all   cellar  2023-11-14 22:13\n"
        "写真             1.0 MB         3/3     attic   2023-11-14 22:13\n"
    )
    assert meshd.last.query == {"limit": "200", "copies": "1"}


async def test_filters_are_the_daemons_work(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.answers("GET", "/v1/pins", entries())
    result = await meshctl("ls", "--name", "mïn utes", "--owner", "attic")
    assert (result.code, result.out) == (0, "")
    assert meshd.last.query == {"name": "mïn utes", "owner": "attic", "limit": "200", "copies": "1"}
    assert result.err == "Nothing is kept that fits.\n"
    assert "meshctl pin PATH" in (await meshctl("ls")).err


def in_pages(meshd: FakeMeshd, total: int) -> None:
    """A mesh of so many entries, answered in pages as they are asked for."""

    async def handler(request: web.Request) -> web.StreamResponse:
        first = int(request.query.get("after", "0"))
        last = min(first + int(request.query["limit"]), total)
        found = [entry(f"n{i}") for i in range(first, last)]
        return web.json_response(entries(*found, after=str(last) if last < total else None, total=total))

    meshd.does("GET", "/v1/pins", handler)


async def test_every_page_is_asked_for(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    in_pages(meshd, 450)
    assert len((await meshctl("ls", "--all")).out.splitlines()) == 1 + 450
    assert [asked.query.get("after") for asked in meshd.asked] == [None, "200", "400"]
    (document,) = (await meshctl("ls", "--json")).documents
    assert [found["name"] for found in document["entries"]] == [f"n{i}" for i in range(450)]
    assert (document["total"], document["next"]) == (450, None)


async def test_a_limit_is_kept_and_what_is_not_shown_is_counted(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    in_pages(meshd, 450)
    result = await meshctl("ls", "--limit", "250")
    assert len(result.out.splitlines()) == 1 + 250
    assert [asked.query["limit"] for asked in meshd.asked] == ["200", "50"]
    assert result.err == "250 of 450 entries. To see more: a larger --limit\n"


async def test_a_file_shows_where_its_copies_are(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    copies = [
        {"node": "attic", "state": "held", "detail": ""},
        {"node": "desk", "state": "refused", "detail": "its disk is full"},
    ]
    meshd.answers("GET", "/v1/pins/minutes.pdf%402", entry(version=2, held=1, copies=copies))
    result = await meshctl("ls", "minutes.pdf@2")
    assert result.code == 0
    assert result.out == (
        "name    minutes.pdf@2\n"
        "size    300.0 MB (300000000 bytes)\n"
        "owner   attic (this node)\n"
        "when    2023-11-14 22:13\n"
        "copies  1/3\n"
        "entry   bafyentry\n"
        "root    bafyroot\n"
        "\n"
        "NODE   COPY\n"
        "attic  held\n"
        "desk   refused  its disk is full\n"
    )
    assert (await meshctl("ls", "minutes.pdf@2", "--json")).documents[0]["copies"] == copies


async def test_a_directory_shows_what_is_inside_at_a_path(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    copies = [
        {"node": "attic", "state": "held"},
        {"node": "desk", "state": "fetching", "detail": "1 of 9 GB"},
    ]
    photos = entry("photos", directory=True, files=9, held=1, copies=copies)
    items = [
        {"name": "may", "size": 5000, "directory": True},
        {"name": "\x1b]0;x\x07.jpg", "size": 12_000, "directory": False},
    ]
    listing = {"entry": photos, "path": "", "directory": True, "items": items}
    meshd.answers("GET", "/v1/pins/photos", photos)
    meshd.answers("GET", "/v1/pins/photos/files", listing)
    result = await meshctl("ls", "photos")
    assert result.code == 0
    assert result.out == "   SIZE  NAME\n         may/\n12.0 kB  \\x1b]0;x\\x07.jpg\n"
    assert (
        result.err
        == "photos/  300.0 MB in 9 files, copies 1/3: attic\n  not yet on desk: it is on its way there (1 of 9 GB)\n"
    )
    assert meshd.last.query == {"path": ""}
    assert (await meshctl("ls", "photos/1974/may & june/")).out == result.out
    assert meshd.last.query == {"path": "1974/may & june"}
    assert (await meshctl("ls", "photos", "--json")).documents == [listing]


async def test_what_is_not_there_is_exit_4(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for ref in ("nothing", "nothing/at/all"):
        result = await meshctl("ls", ref)
        assert result.code == 4
        assert "  try: meshctl ls\n" in result.err


async def test_a_ref_cannot_be_a_step_in_the_path(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for verb, ref in (
        ("ls", ".."),
        ("get", "../x"),
        ("rm", "."),
        ("rm", ""),
        ("restore", ".."),
        ("ls", "/etc"),
    ):
        result = await meshctl(verb, ref)
        assert result.code == 2, ref
        assert result.err.endswith("  try: meshctl ls\n")
    assert meshd.asked == []
    assert (await meshctl("rm", "a?b#c%2F")).code == 4
    assert meshd.last.path == "/v1/pins/a%3Fb%23c%252F"


async def test_filters_make_no_sense_inside_one_entry(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for args in (("x", "--name", "y"), ("x", "--limit", "3"), ("--limit", "0"), ("--limit", "3", "--all")):
        assert (await meshctl("ls", *args)).code == 2


async def test_head_ends_it_quietly(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    in_pages(meshd, 2000)
    pipeline = '{ "$@"; echo "$?" >&2; } | head -n 1'
    meshctl.prefix = ["sh", "-c", pipeline, "sh"]
    result = await meshctl("ls")
    assert result.out.startswith("NAME")
    assert len(result.out.splitlines()) == 1
    assert result.err == "141\n"


def away(node: str) -> Document:
    return {"node": node, "state": "unknown", "detail": "nothing listens there"}


async def test_who_is_away_is_told_once_below_the_table(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    held = [{"node": "attic", "state": "held"}]
    short = [entry(name, held=1, copies=[*held, away("desk")]) for name in ("a", "b")]
    meshd.answers("GET", "/v1/pins", entries(*short))
    result = await meshctl("ls")
    assert "1/3" in result.out
    assert result.err == "desk is away: its copies are not counted\n"
    meshd.answers("GET", "/v1/pins", entries(*short, entry(held=1, copies=[away("shed"), away("desk")])))
    assert (await meshctl("ls")).err == "desk, shed are away: their copies are not counted\n"


async def test_nobody_is_told_of_who_is_away_where_all_copies_are_there(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/pins", entries(entry(held=2, wanted=2, copies=[away("desk")])))
    assert (await meshctl("ls")).err == ""


async def test_a_directory_says_who_is_away_and_where_its_symlinks_lead(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    photos = entry("photos", directory=True, files=1, held=1, copies=[away("desk")])
    items = [{"name": "latest", "size": 6, "directory": False, "target": "1974/\x1b"}]
    meshd.answers("GET", "/v1/pins/photos", photos)
    meshd.answers("GET", "/v1/pins/photos/files", {"entry": photos, "items": items})
    result = await meshctl("ls", "photos")
    assert result.out == "SIZE  NAME\n      latest -> 1974/\\x1b\n"
    assert result.err.endswith("\n  desk is away: nothing listens there\n")
