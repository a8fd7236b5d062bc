"""Makes routes of the RPCs between nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from meshd.http.request import Request
from meshd.http.route import Route
from meshd.principal import Principal
from meshd.wire.verbs import A, Q, Verb

_ANSWER_S = 120.0  # longer than any client waits


def answered(verb: Verb[Q, A], by: Callable[[Principal, Q], Awaitable[A]]) -> Route:
    """The route of a verb. by(caller, request): runs once the caller is authorized. Its MeshError is the response."""

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
