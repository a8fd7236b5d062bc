"""Operations: what takes long, as an object that outlives whoever began it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from meshd.wire.base import Wire

OperationState = Literal["running", "done", "failed", "interrupted"]


class Operation(Wire):
    """Something that takes long. Who began it may go away; others find it by its id.

    verb: pin, restore, recover, init, join or leave. subject: of which entry or mesh, as far as that was known at the
    beginning. by: who began it. ended: null while it runs. interrupted: meshd was stopped, or it could not go on without who
    began it. cid: of the entry, once that is in the list. error: the problem of one that failed or was interrupted.
    """

    id: str
    verb: str
    subject: str
    by: str
    began: float
    ended: float | None = None
    state: OperationState = "running"
    cid: str = ""
    error: dict[str, Any] | None = None


class Operations(Wire):
    """The newest first. Those that ended go after a week, or where there are more than a thousand."""

    operations: list[Operation] = Field(default_factory=list)


class EndedEvent(Wire):
    """The last event of an operation as it was stored: `done` or `error`, with all that it said."""

    model_config = ConfigDict(extra="allow")

    event: Literal["done", "error"]
