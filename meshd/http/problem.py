"""From a fault to its RFC 9457 answer: the one place where an exception becomes what a caller is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import ValidationError

from meshd.errors import Code, MeshError, mistake
from meshd.http.query import SEE_API
from meshd.principal import Access

_TOLD_MOST = 3  # of what is wrong in a document of another node


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What differs between the listeners that serve routes.

    part: of the log. see: what to do about a request that makes no sense. headers: of every answer. hides: who may learn
    that a path is not there; None for everybody. between_nodes: the caller is a meshd, maybe a newer one: a parameter that
    nobody knows is passed over, an error tells who brought it about, and the values of a bad document are not repeated.
    fault: what a caller is told of a mistake of meshd's own; failed: what the log is told. tell: makes the answer of an
    error where the caller understands no problem documents.
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
    """The error, before anything else was sent: a problem document, where the surface has no other way."""
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
    """A document that is not of the shape that the route takes; it names the members that are wrong."""
    if surface.between_nodes:
        errors = exc.errors(include_url=False, include_input=False, include_context=False)[:_TOLD_MOST]
    else:
        errors = exc.errors(include_url=False)
    what = "; ".join(f"{_member(error['loc'])}: {error['msg']}" for error in errors)
    return MeshError(Code.BAD_REQUEST, "cannot understand the request", what, surface.see)


def _member(place: tuple[int | str, ...]) -> str:
    """Where in the document something is wrong; what is typed there is shown as it would be in code."""
    return ".".join(ascii(str(p))[1:-1] for p in place)[:80] or "body"


def unknown(method: str, path: str, methods: list[str], surface: Surface) -> MeshError:
    """No route is meant. methods: that the path takes, none where there is no such path."""
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
    """The handler took longer than the route allows."""
    return MeshError(Code.NOT_READY, "cannot answer in time", "this node is overloaded", "try again later")


def body_missing(why: str, surface: Surface) -> MeshError:
    """The body did not come, or too much of it."""
    return MeshError(Code.BAD_REQUEST, "cannot take that request", why, surface.see)
