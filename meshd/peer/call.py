"""A request as handlers see it, and what a route is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from meshd.errors import Code, MeshError
from meshd.wire import Member

Access = Literal["stranger", "member"]
_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """caller: the live member that calls, None for a stranger. remote: its IP address. body: as it came."""

    caller: Member | None
    remote: str
    query: Mapping[str, str]
    body: bytes

    def read(self, model: type[_M]) -> _M:
        """The body as `model`. Raises MeshError BAD_REQUEST, which names the members that are wrong, not their values."""
        try:
            return model.model_validate_json(self.body)
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False, include_context=False)[:3]
            what = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in errors)
            raise bad_request(what) from None

    def member(self) -> Member:
        """The caller, in a handler that only members reach."""
        if self.caller is None:
            raise MeshError(
                Code.DENIED, "cannot do that for a stranger", "only members of the mesh may ask this"
            )
        return self.caller

    def count(self, name: str) -> int:
        """A whole number from 0 of the query; 0 where it is not given. Raises MeshError BAD_REQUEST."""
        text = self.query.get(name, "0")
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise bad_request(f"{name}: expected a whole number from 0")
        return int(text)


Handler = Callable[[Call], Awaitable[BaseModel]]


class Route(NamedTuple):
    """One row of the table. Access is decided before the handler runs."""

    method: str
    path: str
    access: Access
    handler: Handler


class Done(BaseModel):
    """An answer that says only that it was done: `{}`."""


def bad_request(what: str) -> MeshError:
    """The caller made a mistake."""
    return MeshError(
        Code.BAD_REQUEST,
        "cannot understand the request",
        what,
        "see that both nodes run a meshd of about the same age",
    )
