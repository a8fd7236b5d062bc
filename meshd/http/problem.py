"""The mapping of exceptions to responses: RFC 9457 problem documents, for every listener."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import ValidationError

from meshd.errors import Code, MeshError, mistake
from meshd.http.query import SEE_API
from meshd.principal import Access

_TOLD_MOST = 5  # errors to report of one document: a list of a million items may have as many


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """The differences between the listeners.

    part: of the log. see: the hint for an invalid request. headers: of every response. hides: the access that it takes
    to learn that a path does not exist; None for everybody. between_nodes: the caller is a meshd, maybe a newer one:
    ignore unknown parameters, and name the node that caused an error.
    fault: the error for a bug in meshd; failed: its line in the log. tell: makes error responses for callers that do
    not understand problem documents.
    """

    part: str
    see: str = SEE_API
    headers: Mapping[str, str] = field(default_factory=dict)
    hides: Access | None = None
    between_nodes: bool = False
    fault: MeshError = field(default_factory=mistake)
    failed: str = "a request failed"
    tell: Callable[[MeshError], web.Response] | None = None


def answer(error: MeshError, surface: Surface) -> web.Response:
    """The response for an error, while nothing is sent yet: a problem document, unless the surface has `tell`."""
    if surface.tell is not None:
        return surface.tell(error)
    by = {"by": error.by} if error.by and surface.between_nodes else {}
    return web.Response(
        status=error.status,
        body=json.dumps(error.problem() | by).encode(),
        content_type="application/problem+json",
        headers=dict(surface.headers),
    )


def invalid(exc: ValidationError, surface: Surface) -> MeshError:
    """The error for a document that violates the route's schema. It names the wrong members."""
    errors = exc.errors(include_url=False, include_input=False, include_context=False)[:_TOLD_MOST]
    what = "; ".join(f"{_member(error['loc'])}: {error['msg']}" for error in errors)
    return MeshError(Code.BAD_REQUEST, "cannot understand the request", what, surface.see)


def _member(place: tuple[int | str, ...]) -> str:
    """The path to a wrong member of a document, as in code."""
    return ".".join(ascii(str(p))[1:-1] for p in place)[:80] or "body"


def unknown(method: str, path: str, methods: list[str], surface: Surface) -> MeshError:
    """The error for no matching route. methods: those of the path; none where the path does not exist."""
    if methods:
        return MeshError(
            Code.BAD_REQUEST,
            f"cannot {method} {ascii(path[:200])[1:-1]}",
            f"it takes {', '.join(methods)}",
            surface.see,
        )
    return MeshError(
        Code.NOT_FOUND,
        f"cannot find {ascii(f'{method} {path}'[:200])[1:-1]}",
        "no such route",
        surface.see,
    )


def out_of_time() -> MeshError:
    """The error for a handler that exceeds the route's time-out."""
    return MeshError(Code.NOT_READY, "cannot answer in time", "this node is overloaded", "try again later")


def body_missing(why: str, surface: Surface) -> MeshError:
    """The error for a body that did not arrive, or is too long."""
    return MeshError(Code.BAD_REQUEST, "cannot take that request", why, surface.see)
