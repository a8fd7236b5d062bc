"""The registry of operations: owns their tasks, records how each began and ended, and serves their followers."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from pathlib import Path

import structlog

from meshd import wire
from meshd.errors import Code, MeshError, mistake, one_line
from meshd.operations.events import EventLog
from meshd.operations.store import OperationStore, Record

FILE = "operations.db"
KEPT_S = 7 * 86400.0
"""Seconds for which to keep an operation that has ended."""
KEPT_MOST = 1000
WRITE_S = 5.0  # so long an operation waits until it is recorded: a dead disk may hold up a write for ever
LISTED_MOST = 1000  # many more may run, where a script does not wait for them
SUBJECT_MOST = 255  # characters
LOGS_MOST = 50
"""So many ended operations keep all their events; older ones keep the last one only."""
_LOG = structlog.get_logger(part="operations")


class Operation:
    """An operation of this run of meshd. Its work emits events, and reports when it needs its client no more."""

    def __init__(self, record: Record, changed: Callable[[Record], Awaitable[None]], *, tied: bool) -> None:
        """changed: records changes. tied: cancel it when its client disconnects; see `untie`."""
        self.record = record
        self.log = EventLog()
        self.task: asyncio.Task[None] | None = None
        self.last: wire.Wire | None = None  # the last event, as the work emitted it
        self.early: wire.Wire | None = None  # the response for a client that does not wait for the end
        self.abandoned = False  # its client disconnected while it was tied
        self._changed = changed
        self._tied = tied

    @property
    def id(self) -> str:
        return self.record.id

    async def emit(self, event: wire.Wire) -> None:
        """Publish one event. `done` and `error` are published only after the end is recorded."""
        if getattr(event, "event", "") in ("done", "error"):
            self.last = event
            return
        self.log.append(event)
        if isinstance(event, wire.EntryEvent):
            await self._changed(self.record.model_copy(update={"cid": event.cid, "subject": event.name}))

    async def committed(self, early: wire.Wire) -> None:
        """Note the point of no return: this node or the mesh completes it. early: the response when detached."""
        self.early = early

    def untie(self) -> None:
        """From now on it goes on without its client."""
        self._tied = False

    def caller_gone(self) -> None:
        """Note that the client which began it has disconnected."""
        if self._tied and self.task is not None and not self.task.done():
            self.abandoned = True
            self.task.cancel()

    def follow(self) -> AsyncGenerator[wire.Wire, None]:
        """See `EventLog.follow`."""
        return self.log.follow()


Work = Callable[[Operation], Awaitable[None]]


class Operations:
    """The operations of this machine, earlier runs included, the oldest first. Outlives the node that a leave ends."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """Blocks: reads the records. Operations that were running in them were interrupted.

        unexplained: those whose outcome was not looked up yet; until then their record stays as it is.
        """
        self._now = now
        self._store = OperationStore(path)
        self._records: dict[str, Record] = {}
        self._begun: dict[str, Operation] = {}  # the running ones, and those that ended last
        self._changed: set[str] = set()  # ids whose record differs from the file's
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Future[None]] = set()  # under way
        self._accepting = False
        self.unexplained: list[str] = []
        for record in self._store.load():
            if record.state == "running":
                record = _ended(
                    record, now(), "interrupted", wire.ErrorEvent(problem=stopped(record).problem())
                )
                self.unexplained.append(record.id)
            self._records[record.id] = record

    @property
    def accepting(self) -> bool:
        """Whether new operations may begin."""
        return self._accepting

    async def open(self) -> None:
        """Accept new operations from now on."""
        self._accepting = True

    async def stop(self, sparing: Collection[str] = ()) -> None:
        """Cancel running operations, but for those verbs, and accept no more. The next start explains them."""
        self._accepting = False
        tasks = [o.task for o in self._begun.values() if o.task and o.record.verb not in sparing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def release(self) -> None:
        """Close the file, so that leave can remove it. Blocks; thread-safe. What still runs is recorded anew."""
        self._store.close()
        self.unexplained = []
        self._records = {key: r for key, r in list(self._records.items()) if r.state == "running"}

    async def close(self) -> None:
        """Close the file; all is in it then."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=WRITE_S)
        await asyncio.to_thread(self._store.close)

    def begin(self, verb: str, subject: str, by: str, work: Work, *, tied: bool = False) -> Operation:
        """Record that an operation begins, and run `work` in a task of this registry.

        by: the caller's label. tied: see `Operation`. Raises MeshError NOT_READY while meshd stops.
        """
        if not self._accepting:
            raise MeshError(Code.NOT_READY, f"cannot {verb} now", "meshd is stopping", "meshctl status")
        self._forget_old()
        shown = subject[:SUBJECT_MOST]
        record = Record(id=self._new_id(), verb=verb, subject=shown, by=by, began=self._now())
        operation = Operation(record, self._put, tied=tied)
        self._records[record.id] = record
        self._begun[record.id] = operation
        operation.task = asyncio.create_task(self._run(operation, work), name=f"{verb} {record.id}")
        return operation

    def list(self) -> list[wire.Operation]:
        """All operations, the newest first."""
        return [_view(record) for record in itertools.islice(reversed(self._records.values()), LISTED_MOST)]

    def get(self, id_: str) -> wire.Operation:
        """Raises MeshError NOT_FOUND."""
        return _view(self._find(id_))

    def follow(self, id_: str) -> AsyncGenerator[wire.Wire, None]:
        """Follow an operation, see `EventLog.follow`. One that ended long ago has only its last event.

        Raises MeshError NOT_FOUND.
        """
        record = self._find(id_)
        operation = self._begun.get(record.id)
        return operation.follow() if operation is not None else _only_last(record)

    def record_of(self, id_: str) -> Record | None:
        """The record of an operation; None where it is not kept any more."""
        return self._records.get(id_)

    async def explain(self, id_: str, detail: str, hint: str, *, settled: bool) -> None:
        """Set the outcome of an interrupted operation. settled: it is final, so store it."""
        record = self._records.get(id_)
        if record is None or id_ not in self.unexplained:
            return
        error = MeshError(Code.OPERATION_INTERRUPTED, _cannot_finish(record), detail, hint)
        last = wire.ErrorEvent(problem=error.problem())
        record = record.model_copy(update={"last": last.model_dump_json()})
        self._records[id_] = record
        if (operation := self._begun.get(id_)) is not None:
            operation.log.close(last)
        if settled:
            self.unexplained.remove(id_)
            await self._put(record)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _run(self, operation: Operation, work: Work) -> None:
        """Run the work and record how it ended. Raises nothing, as nothing awaits this task."""
        state: wire.OperationState = "failed"
        try:
            await self._put(operation.record)
            await work(operation)
            if operation.last is None and not self._accepting:
                raise asyncio.CancelledError  # something that it awaited was stopped
            last = operation.last or wire.ErrorEvent(problem=mistake().problem())
            state = "failed" if isinstance(last, wire.ErrorEvent) else "done"
        except asyncio.CancelledError:
            last, state = wire.ErrorEvent(problem=self._why_cancelled(operation).problem()), "interrupted"
        except MeshError as exc:
            _LOG.info("an operation failed", verb=operation.record.verb, id=operation.id, error=str(exc))
            last = wire.ErrorEvent(problem=exc.problem())
        except Exception:  # noqa: BLE001 - the one seam: followers get a problem, the log the details
            _LOG.exception("an operation failed", verb=operation.record.verb, id=operation.id)
            last = wire.ErrorEvent(problem=mistake().problem())
        record = _ended(operation.record, self._now(), state, last)
        try:
            if state != "interrupted":
                await self._put(record)
            else:
                # In the file it still runs, so that it is explained: here, or after the next start.
                operation.record = self._records[record.id] = record
                self.unexplained.append(record.id)
        finally:
            operation.log.close(last)

    def _why_cancelled(self, operation: Operation) -> MeshError:
        if operation.abandoned:
            detail = "whoever began it went away, and it could not go on by itself yet"
            hint = f"meshctl operations {operation.id}"
            return MeshError(Code.OPERATION_INTERRUPTED, _cannot_finish(operation.record), detail, hint)
        why = "this node is leaving its mesh" if self._accepting else "meshd is stopping"
        return MeshError(Code.NOT_READY, "cannot finish", why, "meshctl status")

    async def _put(self, record: Record) -> None:
        """Store a record durably. One that cannot be written blocks nothing: it is written with the next one."""
        self._records[record.id] = record
        if (operation := self._begun.get(record.id)) is not None:
            operation.record = record
        self._changed.add(record.id)
        writing = asyncio.ensure_future(self._write())
        self._writes.add(writing)
        writing.add_done_callback(self._writes.discard)
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(writing)
        except TimeoutError:
            _LOG.warning("cannot record what is under way yet", why="the disk does not answer")

    async def _write(self) -> None:
        """Write all that has changed, in one transaction."""
        async with self._writing:
            if not self._changed:
                return  # another call has written it along with its own
            changed, self._changed = self._changed, set()
            records = list(self._records.values())
            known: dict[str, Record | None] = {r.id: r for r in records if r.id in changed}
            gone = dict.fromkeys(changed - known.keys())
            try:
                await asyncio.to_thread(self._store.write, {**gone, **known}, records)
            except (MeshError, OSError) as exc:  # whatever a disk does, it holds up no operation
                self._changed |= changed
                _LOG.warning("cannot record what is under way", error=one_line(exc))

    def _forget_old(self) -> None:
        """Drop operations that ended long ago or are too many, and the events of most others."""
        over = [r for r in self._records.values() if r.state != "running" and r.id not in self.unexplained]
        too_many = len(self._records) + 1 - KEPT_MOST
        for number, record in enumerate(over):
            if number < too_many or (record.ended or 0.0) < self._now() - KEPT_S:
                del self._records[record.id]
                self._begun.pop(record.id, None)
                self._changed.add(record.id)
        ended = [o.id for o in self._begun.values() if o.task is not None and o.task.done()]
        for id_ in ended[: max(0, len(ended) - LOGS_MOST)]:
            del self._begun[id_]

    def _new_id(self) -> str:
        while (id_ := secrets.token_hex(4)) in self._records:
            pass
        return id_

    def _find(self, id_: str) -> Record:
        record = self._records.get(id_)
        if record is None:
            raise MeshError(
                Code.NOT_FOUND,
                f"cannot find the operation {id_[:40]!a}",
                "there is none of that id, or it ended long ago",
                "meshctl operations",
            )
        return record


def stopped(record: Record) -> MeshError:
    """The error of an operation that ran when meshd ended, before its outcome is known."""
    detail = "meshd was stopped before it ended; what became of it is looked at once this node serves"
    hint = f"meshctl operations {record.id}"
    return MeshError(Code.OPERATION_INTERRUPTED, _cannot_finish(record), detail, hint)


def _cannot_finish(record: Record) -> str:
    return f"cannot finish: {record.verb} {record.subject}".rstrip()


def _ended(record: Record, when: float, state: wire.OperationState, last: wire.Wire) -> Record:
    return record.model_copy(update={"ended": when, "state": state, "last": last.model_dump_json()})


def _view(record: Record) -> wire.Operation:
    last = json.loads(record.last) if record.last else {}
    return wire.Operation(
        id=record.id,
        verb=record.verb,
        subject=record.subject,
        by=record.by,
        began=record.began,
        ended=record.ended,
        state=record.state,
        cid=record.cid,
        error=last.get("problem"),
    )


async def _only_last(record: Record) -> AsyncGenerator[wire.Wire, None]:
    yield wire.EndedEvent.model_validate_json(record.last)
