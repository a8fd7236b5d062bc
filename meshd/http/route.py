"""Routes: their declaration, the responses of their handlers, and the matching of requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel

from meshd.http.request import Request
from meshd.principal import Access
from meshd.wire import Emit

BODY_MOST = 1024 * 1024
"""Default limit of a JSON request, in bytes. Uploads are streamed, and bounded by the disk."""
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Text:
    """A short response without a schema. content_type: the whole header."""

    body: str | bytes
    status: int = 200
    content_type: str = TEXT


@dataclass(frozen=True, slots=True)
class Bytes:
    """A streamed response of bytes. length: their number, None where unknown; fewer cut the connection."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str = "application/octet-stream"
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """An answer that takes long: one event a line, the last one `done` or `error`.

    work(emit): emits them. What it raises before the first one is an ordinary problem document, later the last event. It is
    cancelled where the caller goes away, and emit raises ConnectionError.
    """

    work: Callable[[Emit], Awaitable[None]]
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = BaseModel | Text | Bytes | Events
Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One line of an API. path: with {names}, each for one segment. access: checked before the handler runs.

    answers: the shape of the answer, or the shapes of a stream's events, or a media type. takes: the shape of the JSON
    body, or the media type of one that is streamed. query: the parameters that there are, or a shape of them, which the
    handler then gets as the body. body_most: bytes of a JSON body.
    answer_s: seconds for the body and the handler together; None for as long as it takes.
    """

    method: str
    path: str
    access: Access
    handler: Handler
    answers: type[BaseModel] | tuple[type[BaseModel], ...] | str
    takes: type[BaseModel] | str | None = None
    query: tuple[str, ...] | type[BaseModel] = ()
    body_most: int = BODY_MOST
    answer_s: float | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the query parameters."""
        return self.query if isinstance(self.query, tuple) else tuple(self.query.model_fields)


class Found(NamedTuple):
    """A match. route: None for none. params: of the path. methods: those of the path; none where it does not exist."""

    route: Route | None
    params: dict[str, str]
    methods: list[str]


class Table:
    """A routing table. A path without {names} takes precedence over one with."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._named: dict[str, dict[str, Route]] = {}
        self.add(routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Add routes. Raises ValueError where two have the same method and path."""
        for route in routes:
            paths = self._named if "{" in route.path else self._exact
            methods = paths.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"there is a {route.method} {route.path} already")
            methods[route.method] = route

    def find(self, method: str, raw_path: str) -> Found:
        """Match a request. raw_path: percent-encoded, so that a name may contain a /."""
        segments = [unquote(segment) for segment in raw_path.split("/")]
        methods: set[str] = set()
        for path, routes in self._candidates("/".join(segments)):
            params = _match(path, segments)
            if params is not None:
                if method in routes:
                    return Found(routes[method], params, sorted(routes))
                methods |= set(routes)
        return Found(None, {}, sorted(methods))

    def _candidates(self, path: str) -> Iterable[tuple[str, dict[str, Route]]]:
        if path in self._exact:
            yield path, self._exact[path]
        yield from self._named.items()


def _match(path: str, segments: list[str]) -> dict[str, str] | None:
    """The values of the {names} of `path`, never empty; None where it does not match."""
    params: dict[str, str] = {}
    pattern = path.split("/")
    if len(pattern) != len(segments):
        return None
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{") and given:
            params[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return params
