"""GET /metrics for a Prometheus on another machine of the overlay: no member, but the bearer of a token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import hdrs, web

from meshd.errors import Code, MeshError

PATH = "/metrics"
LEAST = 16  # characters of a token: fewer can be guessed
_MOST = 4096
_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LOG = structlog.get_logger(part="peer-api")


class Scrape:
    """token_file: None turns it off. It is read at each request, so a new token needs no restart."""

    def __init__(self, token_file: Path | None, render: Callable[[], Awaitable[bytes]]) -> None:
        self._token_file = token_file
        self._render = render

    def takes(self, request: web.BaseRequest) -> bool:
        return self._token_file is not None and (request.method, request.path) == ("GET", PATH)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The Prometheus text. Raises MeshError DENIED, the same for every reason: the log has it."""
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        token = await asyncio.to_thread(self._token)
        # The bytes as they came: they need not be UTF-8.
        sent = given.strip().encode(errors="surrogateescape")
        known = scheme.lower() == "bearer" and hmac.compare_digest(sent, token)
        if not token or not known:
            raise MeshError(
                Code.DENIED,
                "cannot show the metrics",
                "the request carries no token, or not the one of [metrics] peer_token_file",
                "give it to Prometheus: authorization: {credentials_file: FILE}",
            )
        return web.Response(body=await self._render(), headers={"Content-Type": _TYPE, "Server": "meshd"})

    def _token(self) -> bytes:
        """b"" where there is none that may be used."""
        assert self._token_file is not None  # noqa: S101 - see takes()
        try:
            token = self._token_file.read_bytes()[:_MOST].strip()
        except OSError as exc:
            _LOG.error("cannot read the token for /metrics", file=str(self._token_file), error=exc.strerror)
            return b""
        if len(token) < LEAST:
            _LOG.error(
                "cannot use the token for /metrics: it is too short", file=str(self._token_file), least=LEAST
            )
            return b""
        return token
