"""Events: what takes long answers `application/x-ndjson`, one event a line, the last one `done` or `error`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from meshd.wire.base import Wire
from meshd.wire.control import Copy, Entry, Mesh


class StepEvent(Wire):
    """What is done now. key: where there is one, this step takes the place of the one before of the same key."""

    event: Literal["step"] = "step"
    message: str
    key: str = ""


class ProgressEvent(Wire):
    """Bytes of content that kubo has taken so far."""

    event: Literal["progress"] = "progress"
    bytes: int


class AddedEvent(Wire):
    event: Literal["added"] = "added"
    root: str
    size: int
    files: int


class EntryEvent(Wire):
    """The entry is in the mesh's pinset; from here on it is made whole even if the caller goes."""

    event: Literal["entry"] = "entry"
    cid: str
    name: str
    wanted: int


class FetchingEvent(Wire):
    """A node that shall hold the entry has got more of it; at most one a second and node.

    bytes: of the blocks that it has by now, those that it had before included; size: of the content. A block that comes
    more than once in the content counts once, so `copy` may come long before the size is reached.
    """

    event: Literal["fetching"] = "fetching"
    node: str
    bytes: int
    size: int


class CopyEvent(Wire):
    """One more node was asked and holds it durably."""

    event: Literal["copy"] = "copy"
    node: str
    held: int
    wanted: int


class PinDoneEvent(Wire):
    """degraded: fewer copies than asked; `missing` says which nodes do not hold it and why."""

    event: Literal["done"] = "done"
    entry: Entry
    degraded: bool
    missing: list[Copy] = Field(default_factory=list)


class LogEvent(Wire):
    event: Literal["line"] = "line"
    time: float
    service: str
    text: str


class LeftEvent(Wire):
    """The last event of leave."""

    event: Literal["done"] = "done"
    mesh: str


class Happening(Wire):
    """A condition came or went."""

    event: Literal["condition-raised", "condition-cleared"]
    time: float
    code: str
    severity: Literal["error", "warning", "info"]
    subject: str
    title: str
    cause: str
    hint: str


class LogsDone(Wire):
    """The last event of logs that are not followed."""

    event: Literal["done"] = "done"


class ErrorEvent(Wire):
    event: Literal["error"] = "error"
    problem: dict[str, Any]


class MeshResult(Wire):
    """The last event of init and join. created: False where the node was in that mesh already."""

    event: Literal["done"] = "done"
    mesh: Mesh
    node: str
    created: bool
