"""/v1/operations: long-running operations by id; and the response to the client that begins one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from meshd import wire
from meshd.errors import MeshError
from meshd.http.request import Request
from meshd.http.route import Events, Route
from meshd.operations.registry import Operation, Operations
from meshd.wire import Emit

ID_HEADER = "Meshd-Operation"
"""Header of each stream of an operation: its id."""
_EVENTS = (
    wire.StepEvent,
    wire.ProgressEvent,
    wire.AddedEvent,
    wire.EntryEvent,
    wire.FetchingEvent,
    wire.CopyEvent,
    wire.CodeEvent,
    wire.ConfirmEvent,
    wire.PinDoneEvent,
    wire.MeshResult,
    wire.LeftEvent,
    wire.ErrorEvent,
)


class OperationsApi:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def routes(self) -> tuple[Route, ...]:
        """The routes, for every reader: the events change nothing, and have no secret."""
        one = "/v1/operations/{id}"
        return (
            Route("GET", "/v1/operations", "read", self.list, wire.Operations),
            Route("GET", one, "read", self.get, wire.Operation),
            Route("GET", f"{one}/events", "read", self.events, _EVENTS),
        )

    async def list(self, request: Request) -> wire.Operations:
        """What runs, and what ended within a week"""
        return wire.Operations(operations=self._operations.list())

    async def get(self, request: Request) -> wire.Operation:
        """One of them"""
        return self._operations.get(request.params["id"])

    async def events(self, request: Request) -> Events:
        """Its events from the beginning, as far as they are kept, then as they come, until it ends"""
        following = self._operations.follow(request.params["id"])

        async def work(emit: Emit) -> None:
            await _pass_on(following, emit)

        return Events(work, {ID_HEADER: request.params["id"]})


def answer(operation: Operation, *, detach: bool = False) -> Events:
    """The stream for the client that begins an operation. An immediate refusal is a plain problem document.

    detach: the stream ends with the argument of `Operation.committed`.
    """

    async def work(emit: Emit) -> None:
        first = True

        async def pass_on(event: wire.Wire) -> None:
            nonlocal first
            if first and isinstance(event, wire.ErrorEvent):
                raise MeshError.from_problem(event.problem)
            first = False
            await emit(event)

        try:
            await _pass_on(operation.follow(), pass_on, until=wire.EntryEvent if detach else None)
            if detach and operation.early is not None:
                await emit(operation.early)
        except (asyncio.CancelledError, ConnectionError):
            operation.caller_gone()
            raise

    return Events(work, {ID_HEADER: operation.id})


async def _pass_on(
    following: AsyncGenerator[wire.Wire, None], emit: Emit, until: type[wire.Wire] | None = None
) -> None:
    """Pass on all events, up to the first one of type `until`, where that is given."""
    async with contextlib.aclosing(following):
        async for event in following:
            await emit(event)
            if until is not None and isinstance(event, until):
                return
