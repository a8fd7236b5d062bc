"""What a route is, what its handler may answer, and which route a request means."""

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
"""Bytes of a JSON request, where the route says nothing else. Uploads are streamed, and bounded by the disk."""
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Text:
    """A short answer that is no document of a shape. content_type: the whole header."""

    body: str | bytes
    status: int = 200
    content_type: str = TEXT


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes as they come. length: how many there will be, None where nobody knows; the caller is cut off where fewer come."""

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
    """One line of an API. path: with {names}, each for one segment. access: who may ask, decided before the handler runs.

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
        """Their names."""
        return self.query if isinstance(self.query, tuple) else tuple(self.query.model_fields)


class Found(NamedTuple):
    """route: None where none is meant. params: of its path. methods: that this path takes, none where there is no such path."""

    route: Route | None
    params: dict[str, str]
    methods: list[str]


class Table:
    """Routes by method and path. A path without {names} goes before one with."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._named: dict[str, dict[str, Route]] = {}
        self.add(routes)

    def add(self, routes: Iterable[Route]) -> None:
        """Raises ValueError where two have the same method and path."""
        for route in routes:
            paths = self._named if "{" in route.path else self._exact
            methods = paths.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"there is a {route.method} {route.path} already")
            methods[route.method] = route

    def find(self, method: str, raw_path: str) -> Found:
        """raw_path: percent-encoded, so that a name may have a / in it."""
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
    """What the {names} of `path` stand for, None where it does not match; they stand for something."""
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
