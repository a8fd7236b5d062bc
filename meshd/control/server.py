"""The control socket: one route table, one seam from exception to answer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from meshd import __version__
from meshd.control import query
from meshd.control.access import Access, Caller, Gatekeeper, caller_of
from meshd.errors import Code, MeshError, mistake
from meshd.serving import listener
from meshd.serving.limiter import Limit, Origin

OWN, KNOWN, OTHERS = "own", "known", "others"
LIMITS = {OWN: Limit(256, 320), KNOWN: Limit(128, 256), OTHERS: Limit(8, 32)}
"""Connections of a user id, and of all of a kind: root and meshd's own user; those whom a group lets in; who may not ask.

A script that pins 200 files at once is one user id.
"""
_LOG = structlog.get_logger(part="control")
_BODY_MOST = 1024 * 1024  # of a JSON request; uploads are streamed and bounded by the disk
M = TypeVar("M", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the API. path: aiohttp's, with {names}.

    answers: the shape of the answer, or the shapes of a stream's events, or a media type. takes: the shape of the JSON
    body, or a media type. query: names that the handler reads.
    """

    method: str
    path: str
    access: Access
    handler: Handler
    answers: type[BaseModel] | tuple[type[BaseModel], ...] | str
    takes: type[BaseModel] | str | None = None
    query: tuple[str, ...] = ()


def json_answer(document: BaseModel) -> web.Response:
    """200 with the document."""
    return web.Response(body=document.model_dump_json().encode() + b"\n", content_type="application/json")


def problem(error: MeshError) -> web.Response:
    """The error as an RFC 9457 problem document."""
    return web.json_response(error.problem(), status=error.status, content_type="application/problem+json")


async def read_request(request: web.Request, model: type[M]) -> M:
    """The JSON body as `model`; an empty body is an empty document. Raises MeshError BAD_REQUEST."""
    try:
        async with asyncio.timeout(listener.BODY_S):
            raw = await request.read()
    except TimeoutError:
        why = f"its body did not come within {listener.BODY_S:.0f} seconds"
        raise MeshError(Code.BAD_REQUEST, "cannot take that request", why, query.SEE_API) from None
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as exc:
        what = "; ".join(f"{_member(e['loc'])}: {e['msg']}" for e in exc.errors(include_url=False))
        raise MeshError(Code.BAD_REQUEST, "cannot understand the request", what, query.SEE_API) from exc


def _member(place: tuple[int | str, ...]) -> str:
    """Where in the document something is wrong; what is typed there is shown as it would be in code."""
    return ".".join(ascii(str(p))[1:-1] for p in place)[:80] or "body"


def _too_many(origin: Origin) -> bytes:
    """What one more than there may be is told."""
    return listener.refusal(
        MeshError(
            Code.BUSY,
            "cannot answer",
            f"user id {origin.who} has too many connections to meshd, or all users together have",
            "see which programs hold them, and end some: ss -xp | grep meshd.sock",
        )
    )


class _NoHttp(logging.Filter):
    """What is no HTTP, and a caller who is gone, are no mistakes of ours: a line of our log, not aiohttp's stack trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (HttpProcessingError, ConnectionError)):
            return True
        _LOG.info("a request could not be read or answered", error=ascii(" ".join(str(error).split()))[:200])
        return False


_NO_HTTP = _NoHttp()


class ControlServer:
    """Serves the routes on a Unix socket that anyone may connect to; who may do what, the kernel's word decides."""

    def __init__(
        self,
        socket: Path,
        routes: Sequence[Route],
        gatekeeper: Gatekeeper,
        *,
        limits: Mapping[str, Limit] = LIMITS,
        head_s: float = listener.HEAD_S,
        grace_s: float = 1.0,
    ) -> None:
        """limits: of connections, by OWN, KNOWN and OTHERS. head_s, grace_s: see Listener."""
        self._socket = socket
        self._gatekeeper = gatekeeper
        self._runner: web.AppRunner | None = None
        self._listener = listener.Listener(
            limits, self._origin, full=_too_many, head_s=head_s, grace_s=grace_s
        )
        self._app = web.Application(client_max_size=_BODY_MOST, middlewares=[self._seam])
        for route in routes:
            self._app.router.add_route(route.method, route.path, self._guarded(route))

    async def start(self) -> None:
        """Listen. Raises OSError."""
        logging.getLogger("aiohttp.server").addFilter(_NO_HTTP)
        self._runner = web.AppRunner(
            self._app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=2.0,
            **listener.HEAD_LIMITS,
        )
        new = self._socket.with_suffix(".new")
        new.unlink(missing_ok=True)
        await self._listener.serve(self._runner, lambda: listener.unix_socket(str(new)))
        os.chmod(new, 0o666)  # noqa: S103, PTH101 - everybody may ask; refusals say what to do
        # It is ours: the lock on the state folder is held. Nobody finds it missing meanwhile.
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

    def _guarded(self, route: Route) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            connection = request.transport.get_extra_info("socket") if request.transport else None
            if connection is None:
                raise MeshError(Code.DENIED, "cannot answer", "the caller is gone")
            self._gatekeeper.check(caller_of(connection), route.access)
            query.check(request, route.query)
            return await route.handler(request)

        return handler

    @web.middleware
    async def _seam(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever happens, the caller gets an answer or a problem document; a stack trace goes to the log only."""
        try:
            response = await handler(request)
        except MeshError as exc:
            response = problem(exc)
        except web.HTTPNotFound:
            response = problem(
                MeshError(
                    Code.NOT_FOUND,
                    f"cannot find {ascii(f'{request.method} {request.path}'[:200])[1:-1]}",
                    "no such route",
                    query.SEE_API,
                )
            )
        except web.HTTPMethodNotAllowed as exc:
            allowed = ", ".join(sorted(exc.allowed_methods))
            error = MeshError(
                Code.BAD_REQUEST,
                f"cannot {request.method} {ascii(request.path[:200])[1:-1]}",
                f"it takes {allowed}",
                query.SEE_API,
            )
            response = problem(error)
        except web.HTTPRequestEntityTooLarge:
            response = problem(
                MeshError(
                    Code.BAD_REQUEST,
                    "cannot take that request",
                    f"it is over {_BODY_MOST} bytes",
                    query.SEE_API,
                )
            )
        except (web.HTTPException, ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - the one seam: the caller gets a problem document, the log the details
            _LOG.exception("a request failed", method=request.method, path=request.path)
            response = problem(mistake())
        if not response.prepared:
            response.headers["Meshd-Version"] = __version__
        return response
