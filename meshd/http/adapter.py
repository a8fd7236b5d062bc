"""Serves a table of routes with aiohttp: authentication, authorization, validation, handler, response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from meshd import principal
from meshd.http import problem, query
from meshd.http.problem import Surface
from meshd.http.query import Query
from meshd.http.request import Request
from meshd.http.route import Answer, Found, Route, Table
from meshd.http.streams import Reply, ask_for_body, read_body
from meshd.principal import Access, Principal
from meshd.serving import listener

Identify = Callable[[web.BaseRequest, Access], Awaitable[Principal]]
"""Authenticates the caller of a route with that access. Raises MeshError for one that gets no route at all."""


class _NoHttp(logging.Filter):
    """A log for aiohttp: malformed HTTP and lost connections are no bugs, and get a line in place of a stack trace."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._log = structlog.get_logger(part=part)

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (HttpProcessingError, ConnectionError)):
            return True
        self._log.info(
            "a request could not be read or answered", error=ascii(" ".join(str(error).split()))[:200]
        )
        return False


class Api:
    """The application for a table of routes. It responds to every request; a stack trace goes to the log only."""

    def __init__(self, surface: Surface, identify: Identify, routes: Iterable[Route] = ()) -> None:
        self.table = Table(routes)
        self._surface = surface
        self._identify = identify
        self._log = structlog.get_logger(part=surface.part)

    def runner(self, **options: Any) -> web.ServerRunner:
        """The runner that serves it. options: of aiohttp's RequestHandler and its runner."""
        logger = logging.getLogger(f"meshd.http.{self._surface.part}")
        if not logger.filters:
            logger.addFilter(_NoHttp(self._surface.part))
        shutdown_timeout = options.pop("shutdown_timeout", 60.0)
        server = web.Server(self, access_log=None, logger=logger, **options, **listener.HEAD_LIMITS)
        return web.ServerRunner(server, shutdown_timeout=shutdown_timeout)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle a request: the one place where an exception becomes a response."""
        reply = Reply(request, self._surface)
        try:
            return await reply.send(await self._answer(request))
        except Exception as exc:  # noqa: BLE001 - the one seam: the caller gets a problem document, the log the details
            return reply.fail(exc)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        found = self.table.find(request.method, request.rel_url.raw_path)
        if found.route is None:
            if self._surface.hides is not None:
                access = self._surface.hides
                principal.check(await self._identify(request, access), access)
            raise problem.unknown(request.method, request.path, found.methods, self._surface)
        limit = asyncio.timeout(found.route.answer_s)
        try:
            async with limit:
                return await found.route.handler(await self._read(request, found.route, found))
        except TimeoutError:
            if not limit.expired():
                raise
            self._log.warning("a request was not answered in time", method=request.method, path=request.path)
            raise problem.out_of_time() from None

    async def _read(self, request: web.BaseRequest, route: Route, found: Found) -> Request:
        """Authenticate, authorize, and only then read and validate the request."""
        caller = await self._identify(request, route.access)
        principal.check(caller, route.access)
        query.check_text(request.rel_url.raw_path_qs, self._surface.see)
        if not self._surface.between_nodes:
            query.check_names(request.query, route.parameters, self._surface.see)
        if isinstance(route.takes, str):
            await ask_for_body(request)
        return Request(
            principal=caller,
            params=found.params,
            query=Query(request.query, self._surface.see),
            body=await self._document(request, route),
            chunks=request.content.iter_any(),
            content_type=request.headers.get("Content-Type", ""),
            length=request.content_length,
        )

    async def _document(self, request: web.BaseRequest, route: Route) -> BaseModel | None:
        """The input in the route's schema: the JSON body, where an empty one is an empty document, or the query."""
        try:
            if isinstance(route.query, type):
                return route.query.model_validate(dict(request.query))
            if not isinstance(route.takes, type):
                return None
            raw = await read_body(request, route.body_most, self._surface)
            return route.takes.model_validate_json(raw or b"{}")
        except ValidationError as exc:
            raise problem.invalid(exc, self._surface) from None
