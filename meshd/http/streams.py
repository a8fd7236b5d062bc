"""Request bodies and responses as streams, with their bounds, and the handling of a response that fails half-way."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from aiohttp import HttpVersion11, hdrs, web
from pydantic import BaseModel

from meshd.errors import Code, MeshError, mistake
from meshd.http import problem
from meshd.http.problem import Surface
from meshd.http.route import Answer, Bytes, Events, Text
from meshd.serving import listener
from meshd.wire import ErrorEvent, Wire


async def ask_for_body(request: web.BaseRequest) -> None:
    """Tell a caller that waits for it (`Expect: 100-continue`, as curl with a large upload) that its body may come."""
    if request.headers.get(hdrs.EXPECT) is not None and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


async def read_body(request: web.BaseRequest, most: int, surface: Surface) -> bytes:
    """Read a small body whole. Raises MeshError BAD_REQUEST where it exceeds `most` bytes, or does not arrive."""
    too_long = problem.body_missing(f"it is too long: over {most} bytes", surface)
    if (request.content_length or 0) > most:
        raise too_long
    await ask_for_body(request)
    raw = bytearray()
    try:
        async with asyncio.timeout(listener.BODY_S):
            async for chunk in request.content.iter_any():
                raw += chunk
                if len(raw) > most:
                    raise too_long
    except TimeoutError:
        why = f"its body did not come within {listener.BODY_S:.0f} seconds"
        raise problem.body_missing(why, surface) from None
    except (web.RequestPayloadError, ConnectionError):
        raise problem.body_missing("it was cut off", surface) from None
    return bytes(raw)


class Reply:
    """The response to one request.

    Before its first byte, a failure becomes a problem document. After that it becomes the last event of a stream of
    events; any other response is cut, which is the only way to signal that it is incomplete.
    """

    def __init__(self, request: web.BaseRequest, surface: Surface) -> None:
        self._request = request
        self._surface = surface
        self._begun: web.StreamResponse | None = None
        self._headers: dict[str, str] = {}
        self._log = structlog.get_logger(part=surface.part)

    async def send(self, answer: Answer) -> web.StreamResponse:
        """Send the response. Raises what the handler's stream raises; pass that to `fail`."""
        if isinstance(answer, Events):
            return await self._send_events(answer)
        if isinstance(answer, Bytes):
            return await self._send_bytes(answer)
        return self._whole(answer)

    def fail(self, exc: Exception) -> web.StreamResponse:
        """The response after an exception."""
        foreseen = isinstance(exc, MeshError) or (self._gone and isinstance(exc, ConnectionError))
        if not foreseen:
            self._log.error(
                self._surface.failed, method=self._request.method, path=self._request.path, exc_info=exc
            )
        if self._begun is not None:
            if not self._gone:
                if foreseen:
                    self._log.warning("an answer broke off", path=self._request.path, error=str(exc))
                assert self._request.transport is not None  # noqa: S101 - it is not gone
                self._request.transport.abort()
            return self._begun
        return problem.answer(exc if isinstance(exc, MeshError) else self._surface.fault, self._surface)

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _gone(self) -> bool:
        """Whether the client has disconnected."""
        return self._request.transport is None or self._request.transport.is_closing()

    def _whole(self, answer: BaseModel | Text) -> web.Response:
        headers = dict(self._surface.headers)
        if isinstance(answer, BaseModel):
            body = answer.model_dump_json().encode() + b"\n"
            return web.Response(body=body, content_type="application/json", headers=headers)
        body = answer.body.encode() if isinstance(answer.body, str) else answer.body
        headers["Content-Type"] = answer.content_type
        return web.Response(body=body, status=answer.status, headers=headers)

    async def _begin(
        self, content_type: str, headers: dict[str, str], length: int | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={**self._surface.headers, **headers, "Content-Type": content_type}
        )
        response.content_length = length
        self._begun = response
        await response.prepare(self._request)
        return response

    async def _send_bytes(self, answer: Bytes) -> web.StreamResponse:
        response, sent = None, 0
        async with contextlib.aclosing(answer.chunks):
            async for chunk in answer.chunks:
                if response is None:
                    response = await self._begin(answer.content_type, dict(answer.headers), answer.length)
                await response.write(chunk)
                sent += len(chunk)
        if answer.length is not None and sent != answer.length:
            raise MeshError(
                Code.INTERNAL,
                "cannot send all of it",
                f"{sent} bytes came of {answer.length}",
                "the same again; and see: journalctl -u meshd",
            )
        if response is None:
            response = await self._begin(answer.content_type, dict(answer.headers), answer.length)
        await response.write_eof()
        return response

    async def _send_events(self, answer: Events) -> web.StreamResponse:
        self._headers = dict(answer.headers)
        try:
            await answer.work(self._emit)
        except MeshError as exc:
            if self._begun is None:
                raise
            await self._emit(ErrorEvent(problem=exc.problem()))
        except asyncio.CancelledError:
            if self._begun is not None and not self._gone:
                stopping = MeshError(Code.NOT_READY, "cannot finish", "meshd is stopping", "meshctl status")
                await self._emit(ErrorEvent(problem=stopping.problem()))
            raise
        except Exception:  # the status is sent: what went wrong can only be told as the last event
            if self._begun is None or self._gone:
                raise
            self._log.exception("a stream failed", method=self._request.method, path=self._request.path)
            await self._emit(ErrorEvent(problem=mistake().problem()))
        response = self._begun or await self._begin_events()
        await response.write_eof()
        return response

    async def _emit(self, event: Wire) -> None:
        """Write one line; the first one begins the response. Raises ConnectionError where the client is gone."""
        response = self._begun or await self._begin_events()
        await response.write(event.model_dump_json().encode() + b"\n")

    async def _begin_events(self) -> web.StreamResponse:
        return await self._begin("application/x-ndjson", self._headers, None)
