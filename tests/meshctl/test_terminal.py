"""Names, texts and paths from anywhere: whatever is in them, none of it drives the terminal."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from tests.meshctl.conftest import Meshctl, Result, Terminal, Writer
from tests.meshctl.fake_meshd import (
    FakeMeshd,
    entry,
    mesh,
    peer,
    pinned,
    refusal,
    send,
    status,
    stream,
)

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\u2066\u200b\r\n\t\x08\ud800"
FIXED = {"event", "state", "phase", "code", "kind"}  # a client goes by these; they come from closed lists
CONDITION = {
    "code": "disk-low",
    "severity": "warning",
    "subject": "x",
    "title": "t",
    "cause": "c",
    "hint": "h",
    "since": 1.0,
}


def poisoned(value: Any, key: str = "") -> Any:
    """The same document, with EVIL in every text that a node, a member or a file name could bring."""
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return f"{value}{EVIL}" if isinstance(value, str) and key not in FIXED else value


def harmless(result: Result) -> None:
    for text in (result.out, result.err):
        bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n"}
        assert not bad, (sorted(map(ascii, bad)), text)


def tell(meshd: FakeMeshd) -> None:
    """Every route answers, and every text in its answers is poisoned."""
    lines = {
        "GET /v1/events": [
            {"event": "condition-raised", "time": 1.0, **CONDITION},
            {"event": "condition-cleared", "time": 1.0, **CONDITION},
            {"event": "something-new", "time": 1.0, "message": "m", "other": "o"},
            {"event": "done"},
        ],
        "GET /v1/logs/kubo": [
            {"event": "line", "time": 1.0, "service": "kubo", "text": "t"},
            {"event": "done"},
        ],
        "POST /v1/mesh": [{"event": "step", "message": "m"}, {"event": "done", "mesh": mesh(), "node": "n"}],
        "POST /v1/mesh/join": [
            {"event": "step", "message": "m"},
            {"event": "done", "mesh": mesh(), "node": "n", "created": True},
        ],
        "DELETE /v1/mesh": [{"event": "step", "message": "m"}, {"event": "done"}],
        "POST /v1/pins": [{"event": "step", "message": "m"}, *pinned("x")[:-1], SHORT],
        "PUT /v1/pins/bafyx": pinned("x"),
        "POST /v1/trash/x/restore": pinned("x")[2:],
    }
    documents = {
        "GET /v1/status": status(conditions=[CONDITION])
        | {"services": [status()["services"][0] | {"last_exit": "e"}]},
        "GET /v1/peers": {
            "peers": [peer("cellar", problem="p", reachable=False), peer("attic", this_node=True)]
        },
        "GET /v1/pins": {"entries": [entry("x", held=2, copies=COPIES)], "total": 1, "next": None},
        "GET /v1/pins/x": entry("x", copies=COPIES),
        "GET /v1/pins/d": entry("d", directory=True, copies=COPIES),
        "GET /v1/pins/d/files": {
            "items": [
                {"name": "n", "size": 1, "directory": False, "target": ""},
                {"name": "l", "size": 1, "directory": False, "target": "t"},
            ]
        },
        "DELETE /v1/pins/x": {
            "entry": entry("x"),
            "restore_until": 1.0,
            "nodes": [
                {"node": n, "state": s, "detail": "d"} for n, s in (("a", "trashed"), ("b", "refused"))
            ],
        },
        "GET /v1/trash": {
            "entries": [entry("x") | {"removed": 1.0, "removed_by": "b", "expires": time.time()}]
        },
        "GET /v1/doctor": {
            "findings": [
                {"area": "a", "rule": "r", "why": "w", "held": held, "found": "f", "hint": "h"}
                for held in (True, False, None)
            ]
        },
        "GET /v1/invites": {"invites": [{"id": "i", "created": 1.0, "expires": 2.0, "used_by": "u"}]},
        "POST /v1/invites": {"invite": "meshd1.x", "id": "i", "expires": 2.0},
        "DELETE /v1/peers/cellar": {"name": "cellar"},
    }
    for at, events in lines.items():
        method, path = at.split(" ")
        meshd.streams(method, path, *poisoned(events))
    for at, document in documents.items():
        method, path = at.split(" ")
        meshd.answers(method, path, poisoned(document))


COPIES = [
    {"node": node, "state": state, "detail": "d"}
    for node, state in (("attic", "held"), ("barn", "refused"), ("cellar", "unknown"), ("desk", "fetching"))
]
SHORT = pinned("x")[-1] | {"degraded": True, "missing": COPIES[1:]}

COMMANDS = [
    ("watch",),
    ("logs", "kubo"),
    ("init",),
    ("join", "meshd1.x"),
    ("leave", "--yes"),
    ("status",),
    ("peers",),
    ("ls",),
    ("ls", "x"),
    ("ls", "d"),
    ("rm", "x"),
    ("rm", "x", "--now"),
    ("trash",),
    ("restore", "x"),
    ("doctor", "--all"),
    ("invite",),
    ("invite", "--list"),
    ("forget", "cellar", "--yes"),
    ("pin", "file"),
    ("pin", "--cid", "bafyx", "--name", "x"),
]


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["shown", "as JSON"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_what_others_named_reaches_no_terminal(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, command: tuple[str, ...], json: tuple[str, ...]
) -> None:
    write("file", b"x")
    tell(meshd)
    result = await meshctl(*command, *json)
    assert result.code in {0, 1, 6}, result
    assert "mistake in meshctl" not in result.err
    assert "owned" in result.out + result.err or command[0] == "leave", "the test must have seen some of it"
    harmless(result)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_no_error_drives_a_terminal(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, command: tuple[str, ...]
) -> None:
    write("file", b"x")

    async def refuse(_: web.Request) -> web.StreamResponse:
        return refusal(409, **poisoned({"title": "cannot t", "detail": "d", "hint": "h"}))

    meshd.otherwise = refuse
    result = await meshctl(*command)
    assert result.code == 1
    assert "owned" in result.err
    harmless(result)


async def test_no_error_in_the_midst_of_a_stream_drives_a_terminal(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    problem = poisoned({"title": "cannot t", "detail": "d", "hint": "h"})
    meshd.streams("GET", "/v1/events", {"event": "error", "problem": problem})
    result = await meshctl("watch")
    assert result.code == 1
    assert "owned" in result.err
    harmless(result)


@pytest.mark.parametrize(
    "command",
    [
        ("pin", EVIL),
        ("pin", "file", "--name", EVIL),
        ("pin", "file", "--replicas", EVIL),
        ("pin", "file", f"--{EVIL}"),
        ("ls", EVIL),
        ("ls", f"x/{EVIL}"),
        ("get", EVIL),
        ("get", "x", "-o", f"no/{EVIL}"),
        ("rm", EVIL),
        ("restore", EVIL),
        ("forget", EVIL),
        ("logs", EVIL),
        ("invite", "--revoke", EVIL),
        (EVIL,),
        ("--socket", EVIL, "status"),
    ],
    ids=lambda command: command[0] if command[0] != EVIL else "as the verb",
)
async def test_what_one_types_oneself_is_not_obeyed_either(
    meshctl: Meshctl, meshd: FakeMeshd, write: Writer, command: tuple[str, ...]
) -> None:
    write("file", b"x")
    meshd.answers("GET", "/v1/peers", {"peers": []})
    typed = [part.replace("\ud800", "\udcff").replace("\0", "") for part in command]
    result = await meshctl(*(os.fsencode(part) for part in typed))
    assert result.code != 0
    assert "owned" in result.err
    assert "mistake in meshctl" not in result.err
    harmless(result)


async def test_names_of_files_in_a_directory_are_shown_and_not_obeyed(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    folder = meshctl.cwd / "club"
    folder.mkdir()
    for name in (b"\x1b[2J\x07owned", "\u202eowned".encode(), b"owned\xe9", b"owned\nagain"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
    result = await meshctl("pin", "club")
    assert result.code == 1
    assert result.err.count("owned") == 4
    harmless(result)


async def test_a_name_in_the_line_of_progress_is_not_obeyed(
    meshctl: Meshctl, meshd: FakeMeshd, terminal: Terminal
) -> None:
    async def content(request: web.Request) -> web.StreamResponse:
        name = quote("owned\x1b[2J\u202e\x9b", safe="")
        response = web.StreamResponse(headers={"Meshd-Kind": "file", "Meshd-Name": name})
        response.content_length = 5
        await response.prepare(request)
        await response.write(b"12345")
        return response

    meshd.does("GET", "/v1/pins/x/content", content)
    running = await meshctl.start("get", "x", "-o", "out", stderr=terminal.device)
    await terminal.shows(r"owned\\x1b\[2J\\u202e\\x9b  5 B of 5 B")
    assert (await running.result()).code == 0
    assert "\x1b[2J" not in terminal.seen
    assert "\u202e" not in terminal.seen


async def test_a_symlink_that_another_node_kept_is_not_obeyed(meshctl: Meshctl, meshd: FakeMeshd) -> None:
    async def content(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"/owned\x1b[2J\xe9", headers={"Meshd-Kind": "symlink", "Meshd-Name": "x"})

    meshd.does("GET", "/v1/pins/x/content", content)
    result = await meshctl("get", "x")
    assert "owned\\x1b[2J\\xe9" in result.err
    harmless(result)


async def test_a_restore_that_fails_half_way_is_told_without_obeying_it(
    meshctl: Meshctl, meshd: FakeMeshd
) -> None:
    async def some(request: web.Request) -> web.StreamResponse:
        response = await stream(request)
        for event in poisoned(pinned("x")[2:4]):
            await send(response, event)
        await send(response, {"event": "error", "problem": poisoned({"title": "cannot t", "hint": "h"})})
        return response

    meshd.does("POST", "/v1/trash/x/restore", some)
    result = await meshctl("restore", "x")
    assert result.code == 1
    harmless(result)
