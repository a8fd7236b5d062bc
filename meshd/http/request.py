"""A request as a handler gets it, independent of the transport."""

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
    """principal: the authorized caller. params: values of the path's {names}. body: the document, in the route's schema.

    chunks: the bytes of a streamed body, as they arrive. content_type, length: the body's; length is None where it is
    not announced.
    """

    principal: Principal
    params: Mapping[str, str] = field(default_factory=dict)
    query: Query = field(default_factory=Query)
    body: BaseModel | None = None
    chunks: AsyncIterator[bytes] = field(default_factory=_empty)
    content_type: str = ""
    length: int | None = None

    def read(self, shape: type[_M]) -> _M:
        """The body as an instance of that schema, the route's own."""
        if not isinstance(self.body, shape):
            raise TypeError(f"the route takes no {shape.__name__}")
        return self.body
