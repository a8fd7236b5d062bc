"""Finding the daemon, and saying why it cannot be found."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from meshctl import client
from meshctl.errors import MeshctlError
from meshd.errors import Code, MeshError
from meshd.serving import listener
from tests.meshctl.conftest import Meshctl
from tests.meshctl.fake_meshd import VERSION, FakeMeshd
from tests.waiting import until


async def test_without_a_socket_it_says_how_to_start_the_daemon(meshctl: Meshctl) -> None:
    result = await meshctl("status")
    assert result.code == 3
    assert result.out == ""
    assert result.err.startswith("meshctl: cannot reach meshd: there is no socket ")
    assert "systemctl start meshd" in result.err
    assert "meshd run --config" in result.err
    assert "MESHD_SOCKET" in result.err


async def test_a_socket_that_nobody_listens_on_is_told_from_a_missing_one(
    meshctl: Meshctl, short_folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(short_folder / "meshd.sock"))
    result = await meshctl("ls")
    assert result.code == 3
    assert "nobody answers at" in result.err
    assert result.err.endswith(
        "  try: meshd run --config FILE, or where it is a service: sudo systemctl start meshd\n"
        "       if it runs with other folders: export MESHD_SOCKET=PATH   (meshd.sock in its [paths] run)\n"
    )


async def test_a_daemon_that_is_busy_is_waited_for(meshctl: Meshctl, short_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(short_folder / "meshd.sock"))
        busy.listen(0)
        first.connect(str(short_folder / "meshd.sock"))  # the queue is full now
        running = await meshctl.start("peers")
        descriptors = Path(f"/proc/{running.process.pid}/fd")
        await until(lambda: any("socket:" in str(path.resolve()) for path in descriptors.iterdir()))
        busy.accept()[0].close()
        second, _ = busy.accept()
        with second:
            second.recv(4096)
            second.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n" + b'{"peers": []}'
            )
            assert (await running.result()).code == 0


async def test_without_right_to_the_socket_it_says_which_group_to_join(
    meshctl: Meshctl, meshd: FakeMeshd, obeying: None
) -> None:
    meshd.path.chmod(0)
    result = await meshctl("status")
    assert result.code == 5
    assert result.err.startswith("meshctl: cannot talk to meshd: you have no right to its socket ")
    assert "sudo usermod -aG meshd $USER" in result.err
    assert meshd.asked == []


async def test_the_option_wins_over_the_environment_wherever_it_stands(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.answers("GET", "/v1/peers", {"peers": []})
    meshctl.env["MESHD_SOCKET"] = "/nonexistent/meshd.sock"
    assert (await meshctl("--socket", meshd.path, "peers")).code == 0
    assert (await meshctl("peers", "--socket", meshd.path)).code == 0
    assert (await meshctl("peers")).code == 3


async def test_your_own_daemon_is_found_by_its_runtime_folder(
    meshctl: Meshctl, short_folder: Path, as_someone: dict[str, Any]
) -> None:
    del meshctl.env["MESHD_SOCKET"]
    own = short_folder / "meshd" / "meshd.sock"
    meshctl.env["XDG_RUNTIME_DIR"] = str(short_folder)
    assert "/run/meshd/meshd.sock" in (await meshctl("peers", **as_someone)).err
    own.parent.mkdir()
    own.touch()
    assert str(own) in (await meshctl("peers", **as_someone)).err


async def test_a_path_too_long_for_a_socket_is_an_error_as_any_other(meshctl: Meshctl) -> None:
    result = await meshctl("--socket", "/tmp/" + "x" * 200, "status")
    assert result.code == 3
    assert "cannot reach meshd" in result.err


async def test_what_the_daemon_refuses_is_shown_with_its_hint_and_its_exit_code(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    for code, status_code, exit_code in (
        ("not-found", 404, 4),
        ("denied", 403, 5),
        ("not-owner", 403, 5),
        ("forgotten", 403, 5),
        ("busy", 409, 1),
        ("a-code-of-the-future", 400, 1),
    ):
        meshd.refuses(
            "GET", "/v1/peers", status_code, code=code, title="cannot list", detail="so it is", hint="this"
        )
        result = await meshctl("peers")
        assert result.code == exit_code, code
        assert result.err == "meshctl: cannot list: so it is\n  try: this\n"
        assert result.out == ""


def test_a_daemon_that_refuses_before_it_reads_anything_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has too many connections, answers, and closes; what is sent to it then breaks."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(client, "connect", lambda _: ours)
    with theirs:
        error = MeshError(Code.BUSY, "cannot answer", "too many connections", "ss -xp")
        theirs.sendall(listener.refusal(error))
    with pytest.raises(MeshctlError) as caught:
        client.Client("meshd.sock").call("GET", "/v1/status")
    assert (caught.value.title, caught.value.hint) == ("cannot answer", "ss -xp")


async def test_with_json_the_problem_is_the_last_line_of_stdout_too(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    meshd.refuses(
        "GET", "/v1/peers", 409, code="no-mesh", title="cannot list", detail="no mesh", hint="meshctl init"
    )
    result = await meshctl("peers", "--json")
    assert result.code == 1
    assert result.err.startswith("meshctl: cannot list")
    (problem,) = result.documents
    assert problem["code"] == "no-mesh"
    assert problem["status"] == 409
    unreachable = await meshctl("--json", "--socket", "/nonexistent", "peers")
    assert unreachable.documents[-1]["code"] == "daemon-unreachable"


async def test_an_answer_that_is_no_problem_document_is_no_riddle(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    from aiohttp import web

    async def plain(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<html>")

    async def no_json(_: web.Request) -> web.StreamResponse:
        return web.Response(text="[1, 2")

    meshd.does("GET", "/v1/peers", plain)
    result = await meshctl("peers")
    assert result.code == 1
    assert "cannot understand the daemon: it answered 502" in result.err
    assert "meshctl version" in result.err
    meshd.does("GET", "/v1/peers", no_json)
    assert "cannot understand the daemon" in (await meshctl("peers")).err


async def test_what_would_drive_the_terminal_is_shown_as_escapes(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    meshd.refuses(
        "GET", "/v1/peers", 404, code="not-found", title="cannot \x1b[2J", detail="\u202egpj\x9b", hint="a\rb"
    )
    result = await meshctl("peers")
    assert result.err == "meshctl: cannot \\x1b[2J: \\u202egpj\\x9b\n  try: a\n       b\n"


async def test_version_works_without_a_daemon_and_with_one(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    alone = await meshctl("--socket", "/nonexistent", "version")
    assert alone.code == 0
    assert alone.out.startswith("meshctl 0.2.0\nmeshd   unknown: cannot reach meshd")
    meshd.answers("GET", "/healthz", {})
    assert (await meshctl("version")).out == f"meshctl 0.2.0\nmeshd   {VERSION}\n"
    meshd.refuses("GET", "/healthz", 403, code="denied", title="cannot look")
    assert (await meshctl("version", "--json")).documents == [{"meshctl": "0.2.0", "meshd": VERSION}]
