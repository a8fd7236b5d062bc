"""A fake ZeroTier Central: both of its APIs over HTTP, for the networks of a Planet.

The older one as its OpenAPI document has it (https://docs.zerotier.com/openapi/central/v1.json: `Authorization: token …`,
a member's settings in `config`, 20 or 100 requests a second). The new one as it was read and never tried
(https://docs.zerotier.com/api-central/: `Authorization: Bearer …`): members go by `deviceId`, and several are authorized
by one call.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.zerotier import namespaces
from tests.zerotier.controllers import RefusedError
from tests.zerotier.planet import Planet

CONTROLLER = "8056c2e21c"  # as of Central's own networks
_CALL = re.compile(r"/api/(v1|v2)/network/([0-9a-f]{16})/member(?:/([0-9a-f]{10}|authorize|deauthorize))?")
_SCHEMES = {"v1": "token", "v2": "Bearer"}


class Request(NamedTuple):
    """One request, for tests of where a token goes."""

    method: str
    path: str
    authorization: str
    body: Any


class FakeCentral:
    """namespace: of its 127.0.0.1; "" for the tests' own. busy: answer that the rate limit is exceeded."""

    def __init__(self, planet: Planet, *, namespace: str = "") -> None:
        self.token = "a-token-of-central"
        self.busy = False
        self.requests: list[Request] = []
        self._planet = planet
        self._namespace = namespace
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        planet.hosted.add(CONTROLLER)

    def start(self) -> None:
        """Listen; after a stop, on the same port."""
        listening = namespaces.listen(self._namespace, self._port)
        self._port = listening.getsockname()[1]
        self._server = _Server(self, listening)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="central", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def url(self, version: str) -> str:
        """version: "v1" or "v2"."""
        return f"http://127.0.0.1:{self._port}/api/{version}"

    def make_network(self, **settings: Any) -> str:
        """Its id. settings: as a controller's API takes them."""
        return str(self._planet.make_network(CONTROLLER, {"private": True, **settings})["id"])

    def answer(self, asked: Request) -> tuple[int, Any]:
        """Status and document, None for no body."""
        self.requests.append(asked)
        if self.busy:
            return 429, None
        match = _CALL.fullmatch(asked.path)
        if match is None:
            return 404, None
        version, network, rest = match.groups()
        if asked.authorization != f"{_SCHEMES[version]} {self.token}":
            return (403 if version == "v1" else 401), {"message": "unauthorized"}
        try:
            return 200, self._do(version, asked, network, rest or "")
        except RefusedError as exc:
            return exc.code, {"message": "not found"}

    def _do(self, version: str, asked: Request, network: str, rest: str) -> Any:
        show = _legacy if version == "v1" else _new
        if not rest and asked.method == "GET":
            return [show(one) for one in self._planet.members(network)]
        if version == "v1" and asked.method == "POST":
            return show(self._planet.change_member(network, rest, asked.body.get("config", {})))
        if version == "v2" and asked.method == "POST" and rest.endswith("authorize"):
            for address in asked.body:
                self._planet.change_member(network, address, {"authorized": rest == "authorize"})
            return {"message": "ok"}
        if asked.method == "GET":
            return show(self._planet.member(network, rest))
        raise RefusedError("", 405)


def _legacy(member: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{member['nwid']}-{member['address']}",
        "networkId": member["nwid"],
        "nodeId": member["address"],
        "controllerId": CONTROLLER,
        "hidden": False,
        "name": member.get("name", ""),
        "description": "",
        "config": member,
        "clientVersion": "1.14.1",
        "protocolVersion": 12,
    }


def _new(member: dict[str, Any]) -> dict[str, Any]:
    return {
        "deviceId": member["address"],
        "networkId": member["nwid"],
        "name": member.get("name", ""),
        "authorized": member["authorized"],
        "ipv4Assignments": member["ipAssignments"],
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, central: FakeCentral, listening: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.central = central


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Request(
            self.command, self.path, self.headers.get("Authorization", ""), json.loads(raw) if raw else None
        )
        code, document = self.server.central.answer(asked)
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(code)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server names them so

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the same
        """Log nothing, as pytest shows all output."""
