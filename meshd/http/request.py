"""A request as a handler gets it, whatever it came by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from meshd.http.query import Query
from meshd.principal import Principal

_M = TypeVar("_M", bound=BaseModel)


_NOTHING: tuple[bytes, ...] = ()


async def _empty() -> AsyncIterator[bytes]:
    for chunk in _NOTHING:
        yield chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """principal: the caller, who may ask this. params: what {names} of the path stand for. body: the document, of the
    shape that the route takes. chunks: the bytes of a body that is no document, as they come; content_type and length
    (None: not announced) are the body's.
    """

    principal: Principal
    params: Mapping[str, str] = field(default_factory=dict)
    query: Query = field(default_factory=Query)
    body: BaseModel | None = None
    chunks: AsyncIterator[bytes] = field(default_factory=_empty)
    content_type: str = ""
    length: int | None = None

    def read(self, shape: type[_M]) -> _M:
        """The body, which is of that shape: the route says so."""
        if not isinstance(self.body, shape):
            raise TypeError(f"the route takes no {shape.__name__}")
        return self.body
