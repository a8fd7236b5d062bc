"""From a call between nodes to the route that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from meshd.http.request import Request
from meshd.http.route import Route
from meshd.principal import Principal
from meshd.wire.verbs import A, Q, Verb

_ANSWER_S = 120.0  # longer than any caller waits


def answered(verb: Verb[Q, A], by: Callable[[Principal, Q], Awaitable[A]]) -> Route:
    """by(caller, request): runs once it is known that the caller may ask; may raise MeshError, which the caller is told."""

    async def handler(request: Request) -> BaseModel:
        return await by(request.principal, request.read(verb.takes))

    by_query = verb.method == "GET"
    return Route(
        verb.method,
        verb.path,
        verb.access,
        handler,
        verb.gives,
        takes=None if by_query else verb.takes,
        query=verb.takes if by_query else (),
        body_most=verb.most,
        answer_s=_ANSWER_S,
    )
