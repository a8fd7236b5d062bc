"""A fake meshd: a real HTTP server on a real Unix socket, with the responses that a test sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

Document = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VERSION = "0.1.0-fake"
NDJSON = "application/x-ndjson"


@dataclass
class Asked:
    """One request as it came: the path undecoded, as %2F and / must not be mixed up."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FormPart:
    """One part of kubo's add form, its file name decoded."""

    name: str
    kind: str
    body: bytes


@dataclass
class FakeMeshd:
    """Set responses with `answers`, `refuses`, `streams` or `does`; the requests are in `asked`."""

    path: Path
    asked: list[Asked] = field(default_factory=list)
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)  # a request's body was truncated
    otherwise: Handler | None = None  # for requests without a response
    _handlers: dict[tuple[str, str], Handler] = field(default_factory=dict)

    def does(self, method: str, path: str, handler: Handler) -> None:
        self._handlers[method, path] = handler

    def answers(self, method: str, path: str, document: Document) -> None:
        async def handler(_: web.Request) -> web.StreamResponse:
            return web.json_response(document)

        self.does(method, path, handler)

    def refuses(self, method: str, path: str, status: int, **problem: str) -> None:
        async def handler(_: web.Request) -> web.StreamResponse:
            return refusal(status, **problem)

        self.does(method, path, handler)

    def streams(self, method: str, path: str, *events: Document, ends: bool = True) -> None:
        """Respond with these events after reading the whole request. ends=False: disconnect instead of ending."""

        async def handler(request: web.Request) -> web.StreamResponse:
            response = await stream(request)
            for event in events:
                await send(response, event)
            if not ends and request.transport is not None:
                request.transport.abort()
            return response

        self.does(method, path, handler)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, _ = request.raw_path.partition("?")
        asked = Asked(request.method, path, dict(request.query), dict(request.headers))
        self.asked.append(asked)
        handler = self._handlers.get((request.method, path), self.otherwise)
        if handler is None:
            return refusal(404, code="not-found", title=f"cannot find {path}", hint="meshctl ls")
        if not getattr(handler, "reads_itself", False):
            try:
                asked.body = await request.read()
            except (ConnectionError, web.RequestPayloadError):
                self.cut_off.set()
                raise
        return await handler(request)

    @property
    def last(self) -> Asked:
        return self.asked[-1]


def reads_itself(handler: Handler) -> Handler:
    """Mark a handler that reads the body itself."""
    handler.reads_itself = True  # type: ignore[attr-defined]
    return handler


def refusal(status: int, **problem: str) -> web.Response:
    document = {
        "type": f"urn:meshd:problem:{problem.get('code')}",
        "status": status,
        "detail": "",
        "hint": "",
    } | problem
    return web.json_response(document, status=status, content_type="application/problem+json")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    await response.prepare(request)
    return response


async def send(response: web.StreamResponse, event: Document) -> None:
    await response.write(json.dumps(event).encode() + b"\n")


async def serve(fake: FakeMeshd) -> web.AppRunner:
    """Start it on its socket; the caller cleans the runner up."""

    app = web.Application(client_max_size=1 << 30)

    async def say_version(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Meshd-Version"] = VERSION

    app.on_response_prepare.append(say_version)
    app.router.add_route("*", "/{rest:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, lingering_time=0, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(fake.path)).start()
    return runner


def parse_form(asked: Asked) -> list[FormPart]:
    """The parts of an add form, read strictly: a delimiter out of place fails the test."""
    kind, _, boundary = asked.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    delimiter = b"--" + boundary.encode()
    closing = b"\r\n" + delimiter + b"--\r\n"
    assert asked.body.startswith(delimiter + b"\r\n")
    assert asked.body.endswith(closing)
    inner = asked.body[len(delimiter) + 2 : -len(closing)]
    return [_part(raw) for raw in inner.split(b"\r\n" + delimiter + b"\r\n")]


def _part(raw: bytes) -> FormPart:
    head, _, body = raw.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode("ascii").split("\r\n"))
    before, _, name = headers["Content-Disposition"].partition("; filename=")
    assert before == 'form-data; name="file"'
    assert name[0] == name[-1] == '"'
    assert "/" not in name
    return FormPart(unquote(name[1:-1]), headers["Content-Type"], body)


# -- documents of the contract ---------------------------------------------------------------------------------------


def entry(name: str = "minutes.pdf", **more: Any) -> Document:
    return {
        "cid": "bafyentry",
        "name": name,
        "version": 1,
        "owner": "attic",
        "mine": True,
        "root": "bafyroot",
        "size": 300_000_000,
        "files": 1,
        "directory": False,
        "time": 1_700_000_000.0,
        "wanted": 3,
        "held": 3,
        "copies": [{"node": node, "state": "held", "detail": ""} for node in ("attic", "cellar", "desk")],
    } | more


def pinned(name: str = "minutes.pdf", **more: Any) -> list[Document]:
    """The events of a pin that succeeds."""
    kept = entry(name, **more)
    return [
        {"event": "progress", "bytes": 5},
        {"event": "added", "root": kept["root"], "size": kept["size"], "files": kept["files"]},
        {"event": "entry", "cid": kept["cid"], "name": name, "wanted": 3},
        {"event": "copy", "node": "attic", "held": 1, "wanted": 3},
        {"event": "copy", "node": "cellar", "held": 2, "wanted": 3},
        {"event": "copy", "node": "desk", "held": 3, "wanted": 3},
        {"event": "done", "entry": kept, "degraded": False, "missing": []},
    ]


def mesh(name: str = "archive", members: int = 1) -> Document:
    return {"name": name, "id": "m1", "members": members, "joined": 1_700_000_000.0, "replicas": 3}


def peer(name: str, **more: Any) -> Document:
    return {
        "name": name,
        "fingerprint": f"SHA256:{name}",
        "address": "10.0.0.1",
        "site": "",
        "this_node": False,
        "reachable": True,
        "last_seen": 1_700_000_000.0,
        "rtt_s": 0.002,
        "ready": True,
        "free": 5_000_000_000,
        "accepts": True,
        "version": "0.1.0",
        "problem": "",
        "admitted_by": "attic",
        "admitted": 1_700_000_000.0,
    } | more


def status(**more: Any) -> Document:
    return {
        "node": {
            "name": "attic",
            "fingerprint": "SHA256:attic",
            "version": "0.1.0",
            "site": "home",
            "uptime_s": 7200.0,
            "state": "/var/lib/meshd",
        },
        "mesh": mesh(members=2),
        "overlay": {"kind": "static", "address": "10.0.0.1", "interface": "wg0", "why": "it is configured"},
        "services": [
            {
                "name": "kubo",
                "phase": "ready",
                "healthy": True,
                "pid": 7,
                "since_s": 7190.0,
                "restarts": 0,
                "version": "0.39.0",
                "last_exit": "",
            }
        ],
        "peers": [peer("cellar", reachable=False, rtt_s=None), peer("attic", this_node=True)],
        "conditions": [],
        "storage": {
            "total": 1_000_000_000_000,
            "free": 412_000_000_000,
            "reserve": 5_368_709_120,
            "offer": None,
            "content": 33_000_000_000,
            "accepts": True,
        },
        "pins": {"entries": 120, "size": 33_000_000_000, "trash": 2, "trash_size": 1_000},
        "secrets": {"kept": "files", "key": "", "encrypted": False},
        "ready": True,
    } | more
