"""The bearer token of a Prometheus on another machine of the overlay: it is no member, and reads the metrics only."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

import structlog

LEAST = 16  # characters of a token: fewer can be guessed
_MOST = 4096
_LOG = structlog.get_logger(part="peer-api")


class ScraperToken:
    """file: None where there is none. Read at each request, so that a new token needs no restart."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    async def is_in(self, authorization: str) -> bool:
        """Whether that header is `Bearer` and the token. Only the log says why it is not."""
        scheme, _, given = authorization.partition(" ")
        token = await asyncio.to_thread(self._token)
        # The raw bytes: they may not be UTF-8.
        sent = given.strip().encode(errors="surrogateescape")
        return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(sent, token)

    def _token(self) -> bytes:
        """The token; b"" where there is none, or none that may be used."""
        if self._file is None:
            return b""
        try:
            token = self._file.read_bytes()[:_MOST].strip()
        except OSError as exc:
            _LOG.error("cannot read the token for /metrics", file=str(self._file), error=exc.strerror)
            return b""
        if len(token) < LEAST:
            _LOG.error(
                "cannot use the token for /metrics: it is too short", file=str(self._file), least=LEAST
            )
            return b""
        return token
