"""Answers that take long: one event a line, the last one `done` or `error`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from meshd import wire
from meshd.errors import Code, MeshError, mistake

_LOG = structlog.get_logger(part="control")


class EventStream:
    """Begins to answer with the first event, so that an error before it is an ordinary problem document."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse | None = None

    async def emit(self, event: wire.Wire) -> None:
        """Write one line. Raises ConnectionError where the caller is gone."""
        if self.response is None:
            self.response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await self.response.prepare(self._request)
        await self.response.write(event.model_dump_json().encode() + b"\n")


async def stream(request: web.Request, work: Callable[[EventStream], Awaitable[None]]) -> web.StreamResponse:
    """Run `work`, which emits events. Its MeshError becomes the last event, or the answer where nothing was sent yet."""
    events = EventStream(request)
    try:
        await work(events)
    except MeshError as exc:
        if events.response is None:
            raise
        await events.emit(wire.ErrorEvent(problem=exc.problem()))
    except asyncio.CancelledError:
        if events.response is not None and not (request.transport is None or request.transport.is_closing()):
            stopping = MeshError(Code.NOT_READY, "cannot finish", "meshd is stopping", "meshctl status")
            await events.emit(wire.ErrorEvent(problem=stopping.problem()))
        raise
    except ConnectionError:
        raise  # the caller is gone
    except Exception:  # the status is sent: what went wrong can only be told as the last event
        if events.response is None:
            raise
        _LOG.exception("a stream failed", method=request.method, path=request.path)
        await events.emit(wire.ErrorEvent(problem=mistake().problem()))
    assert events.response is not None  # noqa: S101 - every work emits at least `done`
    await events.response.write_eof()
    return events.response
