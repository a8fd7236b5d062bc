"""The control socket: serves the routes of all rooms to callers that the kernel authenticates."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from meshd import __version__
from meshd.control.access import Caller, Gatekeeper, caller_of
from meshd.errors import Code, MeshError
from meshd.http import openapi
from meshd.http.adapter import Api
from meshd.http.problem import Surface
from meshd.http.request import Request
from meshd.http.route import Route, Text
from meshd.principal import Access, Principal
from meshd.serving import listener
from meshd.serving.limiter import Limit, Origin

OWN, KNOWN, OTHERS = "own", "known", "others"
LIMITS = {OWN: Limit(256, 320), KNOWN: Limit(128, 256), OTHERS: Limit(8, 32)}
"""Connections of a user id, and of all of a kind: root and meshd's own user; those whom a group lets in; who may not ask.

A script that pins 200 files at once is one user id.
"""
_SURFACE = Surface(part="control", headers={"Meshd-Version": __version__})


def whole(routes: Iterable[Route]) -> list[Route]:
    """The whole control API: these routes, and that of its OpenAPI document."""
    every: list[Route] = []

    async def document(request: Request) -> Text:
        """This document."""
        return Text(json.dumps(described(every)), content_type="application/json; charset=utf-8")

    every += [*routes, Route("GET", "/v1/openapi.json", "read", document, "application/json")]
    return every


def described(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of the control API."""
    return openapi.document(
        routes,
        title="meshd control API",
        about="HTTP/1.1 on the daemon's Unix socket. Access is decided by the caller's uid and groups.",
    )


def _too_many(origin: Origin) -> bytes:
    """The response to a connection beyond the limit."""
    return listener.refusal(
        MeshError(
            Code.BUSY,
            "cannot answer",
            f"user id {origin.who} has too many connections to meshd, or all users together have",
            "see which programs hold them, and end some: ss -xp | grep meshd.sock",
        )
    )


class ControlServer:
    """Serves the routes on a Unix socket that anyone may connect to. Access goes by SO_PEERCRED."""

    def __init__(
        self,
        socket: Path,
        gatekeeper: Gatekeeper,
        *,
        routes: Iterable[Route] = (),
        limits: Mapping[str, Limit] = LIMITS,
        head_s: float = listener.HEAD_S,
        grace_s: float = 1.0,
    ) -> None:
        """limits: of connections, by kind: OWN, KNOWN and OTHERS. head_s, grace_s: see Listener."""
        self._socket = socket
        self._gatekeeper = gatekeeper
        self._runner: web.ServerRunner | None = None
        self._listener = listener.Listener(
            limits, self._origin, full=_too_many, head_s=head_s, grace_s=grace_s
        )
        self._api = Api(_SURFACE, self._identify)
        self.serve(routes)

    def serve(self, routes: Iterable[Route]) -> None:
        """Add routes. Raises ValueError for one that exists already."""
        self._api.table.add(routes)

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._runner = self._api.runner(handler_cancellation=True, shutdown_timeout=2.0)
        new = self._socket.with_suffix(".new")
        new.unlink(missing_ok=True)
        await self._listener.serve(self._runner, lambda: listener.unix_socket(str(new)))
        os.chmod(new, 0o666)  # noqa: S103, PTH101 - everybody may connect; refusals say what to do
        # The name is ours, as we hold the state folder's lock. A rename leaves no moment without a socket.
        new.rename(self._socket)

    async def stop(self, *, replaced: bool = False) -> None:
        """Stop serving. replaced: another server has the socket's name already."""
        if self._runner is not None:
            await self._listener.stop()
            await self._runner.cleanup()
            self._runner = None
            if not replaced:
                self._socket.unlink(missing_ok=True)

    def _origin(self, connection: socket.socket) -> Origin:
        caller = caller_of(connection)
        return Origin(self._kind(caller), str(caller.uid))

    def _kind(self, caller: Caller) -> str:
        if caller.uid in (0, os.geteuid()):
            return OWN
        return KNOWN if self._gatekeeper.knows(caller) else OTHERS

    async def _identify(self, request: web.BaseRequest, _: Access) -> Principal:
        connection = request.transport.get_extra_info("socket") if request.transport else None
        if connection is None:
            raise MeshError(Code.DENIED, "cannot answer", "the caller is gone")
        return self._gatekeeper.identify(caller_of(connection))
