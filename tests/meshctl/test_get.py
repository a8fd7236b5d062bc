"""Fetching a file: whole or not at all, and never over what is there."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from tests.meshctl.conftest import Meshctl, Terminal, Writer
from tests.meshctl.fake_meshd import FakeMeshd, Handler
from tests.waiting import until

CONTENT = "/v1/pins/minutes.pdf/content"


def serving(content: bytes, name: str = "minutes.pdf", announced: int | None = None) -> Handler:
    """Sends the content of a file; announced: another size than it has, the connection then ends early."""

    async def handler(request: web.Request) -> web.StreamResponse:
        size = len(content) if announced is None else announced
        headers = {"Meshd-Kind": "file", "Meshd-Name": quote(name, safe=""), "Meshd-Size": str(size)}
        response = web.StreamResponse(headers=headers)
        response.content_length = size
        await response.prepare(request)
        await response.write(content)
        if announced is not None and request.transport is not None:
            request.transport.close()
        return response

    return handler


def left(meshctl: Meshctl) -> list[str]:
    """Everything in the folder, hidden things too."""
    return sorted(path.name for path in meshctl.cwd.iterdir())


async def test_a_file_lands_under_its_name(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    content = os.urandom(3_000_000)
    meshd.does("GET", CONTENT, serving(content, "mïnutes.pdf"))
    result = await meshctl("get", "minutes.pdf")
    assert result.code == 0
    assert result.out == "got mïnutes.pdf  3.0 MB\n"
    assert (meshctl.cwd / "mïnutes.pdf").read_bytes() == content
    assert left(meshctl) == ["mïnutes.pdf"]


async def test_an_empty_file_is_a_file(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.does("GET", CONTENT, serving(b""))
    assert (await meshctl("get", "minutes.pdf")).code == 0
    assert (meshctl.cwd / "minutes.pdf").read_bytes() == b""


async def test_where_to_and_what_of_it_can_be_said(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    (meshctl.cwd / "sub").mkdir()
    meshd.does("GET", "/v1/pins/photos%402/content", serving(b"may", "may.jpg"))
    result = await meshctl("get", "photos@2/1974/may 1.jpg", "-o", "sub/out.jpg", "--json")
    assert result.code == 0
    assert meshd.last.query == {"path": "1974/may 1.jpg"}
    assert (meshctl.cwd / "sub" / "out.jpg").read_bytes() == b"may"
    assert result.documents == [{"path": "sub/out.jpg", "name": "may.jpg", "kind": "file", "size": 3}]


async def test_a_dash_writes_the_bytes_to_standard_output(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.does("GET", CONTENT, serving(b"a\r\nb"))
    result = await meshctl("get", "minutes.pdf", "-o", "-")
    assert (result.code, result.out, result.err) == (0, "a\r\nb", "")
    assert left(meshctl) == []


async def test_what_is_there_is_never_written_over(meshctl: Meshctl, meshd: FakeMeshd, write: Writer) -> None:
    write("minutes.pdf", b"mine")
    (meshctl.cwd / "dangling").symlink_to("nowhere")
    (meshctl.cwd / "folder").mkdir()
    meshd.does("GET", CONTENT, serving(b"theirs"))
    for args in ((), ("-o", "minutes.pdf"), ("-o", "dangling"), ("-o", "folder")):
        result = await meshctl("get", "minutes.pdf", *args)
        assert result.code == 1
        assert result.err.startswith("meshctl: cannot write ")
        assert "it exists already\n  try: meshctl get minutes.pdf -o " in result.err
        assert "rm " not in result.err
    assert (meshctl.cwd / "minutes.pdf").read_bytes() == b"mine"
    assert left(meshctl) == ["dangling", "folder", "minutes.pdf"]


async def test_a_folder_in_the_way_can_take_it(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    (meshctl.cwd / "my folder").mkdir()
    (meshctl.cwd / "minutes.pdf").mkdir()
    into = await meshctl("get", "club/minutes.pdf", "-o", "my folder/")
    assert into.err.endswith("  try: meshctl get club/minutes.pdf -o 'my folder/minutes.pdf'\n")
    meshd.does("GET", CONTENT, serving(b"x"))
    assert (await meshctl("get", "minutes.pdf")).err.endswith("  try: meshctl get minutes.pdf -o OTHER\n")


def leading(target: str) -> Handler:
    """Sends a symlink."""

    async def handler(_: web.Request) -> web.StreamResponse:
        headers = {"Meshd-Kind": "symlink", "Meshd-Name": "link", "Meshd-Size": str(len(target.encode()))}
        return web.Response(body=target.encode(), headers=headers)

    return handler


async def test_a_symlink_is_not_written_but_it_is_said_where_it_leads(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    for ref, target, hint in (
        ("club/link", "a.txt", "meshctl get club/a.txt"),
        ("club@2/a/b/link", "../it is/../c", "meshctl get club@2/a/c"),
        ("club/a/link", "..", "meshctl get club"),
        ("club/link", "./d e/", "meshctl get 'club/d e'"),
        ("-club/link", "a", "meshctl get -- -club/a"),
    ):
        entry, _, _ = ref.partition("/")
        meshd.does("GET", f"/v1/pins/{quote(entry, safe='')}/content", leading(target))
        result = await meshctl("get", "--", ref)
        assert (result.code, result.out) == (1, "")
        assert result.err == f"meshctl: cannot get {ref}: it is a symlink to {target}\n  try: {hint}\n"
    assert left(meshctl) == []


async def test_where_it_was_to_go_stays_in_the_hint(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.does("GET", "/v1/pins/club/content", leading("a.txt"))
    for output in ("-", "out.txt"):
        result = await meshctl("get", "club/link", "-o", output)
        assert (result.code, result.out) == (1, "")
        assert result.err.endswith(f"  try: meshctl get club/a.txt -o {output}\n")
    assert left(meshctl) == []


async def test_a_symlink_that_leads_out_shows_what_there_is(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for target in ("/etc/passwd", "../../x", "a/../../x", "../" * 2000):
        meshd.does("GET", "/v1/pins/club/content", leading(target))
        result = await meshctl("get", "club/d/link" if target[0] == "." else "club/link")
        assert result.code == 1
        assert result.err.endswith(", which is not in club\n  try: meshctl ls club\n")
        assert len(result.err) < 5000


async def test_what_comes_up_meanwhile_is_not_written_over_either(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Meshd-Kind": "file", "Meshd-Name": "minutes.pdf"})
        response.content_length = 6
        await response.prepare(request)
        await response.write(b"the")
        await until(lambda: [name for name in left(meshctl) if name.startswith(".minutes.pdf.meshctl-")])
        write("minutes.pdf", b"mine")
        await response.write(b"irs")
        return response

    meshd.does("GET", CONTENT, handler)
    result = await meshctl("get", "minutes.pdf")
    assert result.code == 1
    assert "it exists already" in result.err
    assert (meshctl.cwd / "minutes.pdf").read_bytes() == b"mine"
    assert left(meshctl) == ["minutes.pdf"]


async def test_less_than_announced_is_nothing(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.does("GET", CONTENT, serving(b"x" * 1000, announced=2000))
    result = await meshctl("get", "minutes.pdf")
    assert result.code == 1
    assert result.out == ""
    assert "cannot get minutes.pdf: 1000 of 2000 bytes came; nothing was left here" in result.err
    assert left(meshctl) == []
    assert (await meshctl("get", "minutes.pdf", "-o", "-")).code == 1


async def test_two_sizes_that_contradict_are_not_believed(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=b"short", headers={"Meshd-Kind": "file", "Meshd-Name": "x", "Meshd-Size": "9"}
        )

    meshd.does("GET", CONTENT, handler)
    result = await meshctl("get", "minutes.pdf")
    assert result.code == 1
    assert "the daemon announced 9 bytes and then 5" in result.err
    assert left(meshctl) == []


async def test_a_name_from_the_daemon_cannot_choose_another_place(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    for name in ("../out", "/tmp/out", "..", "a\x1b[2J", "x\n"):
        meshd.does("GET", CONTENT, serving(b"x", name))
        result = await meshctl("get", "minutes.pdf")
        assert result.code == 1, name
        assert "\x1b" not in result.err
        assert result.err.endswith("  try: the same with -o PATH\n")
    assert left(meshctl) == []
    assert not (meshctl.cwd.parent / "out").exists()


async def test_what_is_not_there_is_exit_4(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    result = await meshctl("get", "nothing")
    assert result.code == 4
    assert left(meshctl) == []


async def test_a_folder_that_is_not_there_or_not_ours(
    meshctl: Meshctl, meshd: FakeMeshd, obeying: None
) -> None:
    meshd.does("GET", CONTENT, serving(b"x"))
    missing = await meshctl("get", "minutes.pdf", "-o", "no/where")
    assert missing.code == 1
    assert "there is no folder no\n  try: mkdir -p no\n" in missing.err
    assert meshd.asked == []
    (meshctl.cwd / "locked").mkdir(0o500)
    locked = await meshctl("get", "minutes.pdf", "-o", "locked/x")
    assert locked.code == 1
    assert "you may not write there" in locked.err


async def test_a_full_disk_leaves_nothing_and_says_so(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.does("GET", CONTENT, serving(b"x" * 200_000))
    meshctl.prefix = ["prlimit", "--fsize=100000", "--"]
    result = await meshctl("get", "minutes.pdf")
    assert result.code == 1
    assert "cannot write minutes.pdf: File too large; nothing was left there" in result.err
    assert left(meshctl) == []


async def test_a_very_long_name_still_fits_while_it_is_temporary(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    name = "ä" * 127
    meshd.does("GET", CONTENT, serving(b"x", name))
    assert (await meshctl("get", "minutes.pdf")).code == 0
    assert left(meshctl) == [name]


async def stopped_in_the_midst(meshctl: Meshctl, meshd: FakeMeshd, number: signal.Signals) -> tuple[int, str]:
    """A signal when half of it is on the disk."""
    half = asyncio.Event()
    over = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Meshd-Kind": "file", "Meshd-Name": "minutes.pdf"})
        response.content_length = 2000
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await until(lambda: [path for path in meshctl.cwd.iterdir() if path.stat().st_size == 1000])
        half.set()
        await over.wait()
        return response

    meshd.does("GET", CONTENT, handler)
    running = await meshctl.start("get", "minutes.pdf")
    await half.wait()
    running.signal(number)
    result = await running.result()
    over.set()
    return result.code, result.err


async def test_ctrl_c_leaves_nothing_behind(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    heeded = [
        n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN
    ]
    for number in heeded:  # under nohup SIGHUP is ignored, and meshctl leaves it so
        code, err = await stopped_in_the_midst(meshctl, meshd, number)
        assert code == 130
        assert err.startswith("meshctl: cannot get minutes.pdf: interrupted; nothing was left here")
        assert left(meshctl) == []


async def test_ctrl_c_on_standard_output_does_not_say_that_nothing_is_left(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    over = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Meshd-Kind": "file", "Meshd-Name": "minutes.pdf"})
        response.content_length = 2000
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await over.wait()
        return response

    meshd.does("GET", CONTENT, handler)
    running = await meshctl.start("get", "minutes.pdf", "-o", "-")
    assert running.process.stdout is not None
    await running.process.stdout.readexactly(1000)
    running.signal(signal.SIGINT)
    result = await running.result()
    over.set()
    assert result.code == 130
    assert "interrupted; what was written is not all of it" in result.err


async def test_nobody_who_reads_ends_it_quietly(meshctl: Meshctl, meshd: FakeMeshd, tmp_path: Path) -> None:
    meshd.does("GET", CONTENT, serving(b"x" * 1_000_000))
    reading, writing = os.pipe()
    running = await meshctl.start("get", "minutes.pdf", "-o", "-", stdout=writing)
    os.close(writing)
    os.close(reading)
    result = await running.result()
    assert result.code == 141
    assert result.err == ""


async def test_progress_on_a_terminal_knows_the_size(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    meshd.does("GET", CONTENT, serving(b"x" * 1000))
    running = await meshctl.start("get", "minutes.pdf", stderr=terminal.device)
    await terminal.shows(r"minutes\.pdf  1\.0 kB of 1\.0 kB  100 %")
    assert (await running.result()).code == 0
