"""The registry of operations: it owns their tasks, records how each began and ended, and lets any number follow one."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from pathlib import Path

import structlog

from meshd import wire
from meshd.errors import Code, MeshError, mistake
from meshd.operations.events import EventLog
from meshd.operations.store import OperationStore, Record

FILE = "operations.db"
KEPT_S = 7 * 86400.0
"""So long one that ended is told of."""
KEPT_MOST = 1000
SUBJECT_MOST = 255  # characters
LOGS_MOST = 50
"""Of so many that ended the events are kept, and of the others the last one only."""
_LOG = structlog.get_logger(part="operations")


class Operation:
    """One that this run of meshd began. Its work emits events through it, and says when it needs its caller no more."""

    def __init__(self, record: Record, changed: Callable[[Record], Awaitable[None]], *, tied: bool) -> None:
        """changed: records what is new. tied: it ends where its caller goes away; see `untie`."""
        self.record = record
        self.log = EventLog()
        self.task: asyncio.Task[None] | None = None
        self.last: wire.Wire | None = None  # as the work emitted it
        self.early: wire.Wire | None = None  # the answer for a caller who does not wait for its end
        self.abandoned = False  # its caller went away while it was tied
        self._changed = changed
        self._tied = tied

    @property
    def id(self) -> str:
        return self.record.id

    async def emit(self, event: wire.Wire) -> None:
        """Publish one event. `done` and `error` are published once it is recorded that the operation ended."""
        if getattr(event, "event", "") in ("done", "error"):
            self.last = event
            return
        self.log.append(event)
        if isinstance(event, wire.EntryEvent):
            await self._changed(self.record.model_copy(update={"cid": event.cid, "subject": event.name}))

    async def committed(self, early: wire.Wire) -> None:
        """It will be made whole, here or by the mesh. early: the answer for a caller who does not wait for that."""
        self.early = early

    def untie(self) -> None:
        """From here on it goes on without its caller."""
        self._tied = False

    def caller_gone(self) -> None:
        """Whoever began it does not listen any more."""
        if self._tied and self.task is not None and not self.task.done():
            self.abandoned = True
            self.task.cancel()

    def follow(self) -> AsyncGenerator[wire.Wire, None]:
        """See `EventLog.follow`."""
        return self.log.follow()


Work = Callable[[Operation], Awaitable[None]]


class Operations:
    """Those of this machine, those of earlier runs among them, the oldest first. It outlives the node that a leave ends."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """Blocks: reads the record. What ran when it was last written was interrupted; `unexplained` are those of which
        nobody has looked yet what became of them, and until then their record stays as it is."""
        self._now = now
        self._store = OperationStore(path)
        self._records: dict[str, Record] = {}
        self._begun: dict[str, Operation] = {}  # those that run, and the last that ended
        self._changed: set[str] = set()  # ids of which the file does not say what is known here
        self._writing = asyncio.Lock()
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
        """Whether new ones may begin."""
        return self._accepting

    async def open(self) -> None:
        """From here on they may."""
        self._accepting = True

    async def stop(self, sparing: Collection[str] = ()) -> None:
        """End what runs, but for those verbs, and begin nothing more. What is ended so is explained at the next start."""
        self._accepting = False
        tasks = [o.task for o in self._begun.values() if o.task and o.record.verb not in sparing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def release(self) -> None:
        """Let the file be removed: this node leaves its mesh. Blocks; any thread. What runs still is recorded anew."""
        self._store.close()
        self.unexplained = []
        self._records = {key: r for key, r in list(self._records.items()) if r.state == "running"}

    async def close(self) -> None:
        """Have all of it in the one file."""
        await asyncio.to_thread(self._store.close)

    def begin(self, verb: str, subject: str, by: str, work: Work, *, tied: bool = False) -> Operation:
        """Run `work` in a task that belongs to this registry, once it is recorded that it begins.

        by: who begins it. tied: see `Operation`. Raises MeshError NOT_READY while meshd stops.
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
        """The newest first."""
        return [_view(record) for record in reversed(self._records.values())]

    def get(self, id_: str) -> wire.Operation:
        """Raises MeshError NOT_FOUND."""
        return _view(self._find(id_))

    def follow(self, id_: str) -> AsyncGenerator[wire.Wire, None]:
        """Its events, as `EventLog.follow` gives them; of one that ended long ago the last one alone.

        Raises MeshError NOT_FOUND.
        """
        record = self._find(id_)
        operation = self._begun.get(record.id)
        return operation.follow() if operation is not None else _only_last(record)

    def record_of(self, id_: str) -> Record | None:
        """What is recorded of it, None where it is not kept any more."""
        return self._records.get(id_)

    async def explain(self, id_: str, detail: str, hint: str, *, settled: bool) -> None:
        """Say what became of one that was interrupted. settled: for good, so it is written down."""
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
        """The work, and how it ended. Nothing is raised: nobody awaits this task."""
        state: wire.OperationState = "failed"
        try:
            await self._put(operation.record)
            await work(operation)
            if operation.last is None and not self._accepting:
                raise asyncio.CancelledError  # what it waited for was stopped under it
            last = operation.last or wire.ErrorEvent(problem=mistake().problem())
            state = "failed" if isinstance(last, wire.ErrorEvent) else "done"
        except asyncio.CancelledError:
            last, state = wire.ErrorEvent(problem=self._why_cancelled(operation).problem()), "interrupted"
        except MeshError as exc:
            _LOG.info("an operation failed", verb=operation.record.verb, id=operation.id, error=str(exc))
            last = wire.ErrorEvent(problem=exc.problem())
        except Exception:  # noqa: BLE001 - the one seam: who follows it gets a problem, the log the details
            _LOG.exception("an operation failed", verb=operation.record.verb, id=operation.id)
            last = wire.ErrorEvent(problem=mistake().problem())
        record = _ended(operation.record, self._now(), state, last)
        if state != "interrupted":
            await self._put(record)
        elif record.id in self._records:
            # In the file it runs still, so that it is explained: here, or after the next start.
            operation.record = self._records[record.id] = record
            self.unexplained.append(record.id)
        operation.log.close(last)

    def _why_cancelled(self, operation: Operation) -> MeshError:
        if operation.abandoned:
            detail = "whoever began it went away, and it could not go on by itself yet"
            hint = f"meshctl operations {operation.id}"
            return MeshError(Code.OPERATION_INTERRUPTED, _cannot_finish(operation.record), detail, hint)
        why = "this node is leaving its mesh" if self._accepting else "meshd is stopping"
        return MeshError(Code.NOT_READY, "cannot finish", why, "meshctl status")

    async def _put(self, record: Record) -> None:
        """Keep it, durably. A record that cannot be written holds up nothing: it is written with the next one."""
        if record.id not in self._records:
            return  # the node left its mesh meanwhile
        self._records[record.id] = record
        if (operation := self._begun.get(record.id)) is not None:
            operation.record = record
        self._changed.add(record.id)
        async with self._writing:
            if not self._changed:
                return  # another one wrote it along with its own
            changed, self._changed = self._changed, set()
            records = list(self._records.values())
            known: dict[str, Record | None] = {r.id: r for r in records if r.id in changed}
            gone = dict.fromkeys(changed - known.keys())
            try:
                await asyncio.to_thread(self._store.write, {**gone, **known}, records)
            except MeshError as exc:
                self._changed |= changed
                _LOG.warning("cannot record what is under way", error=str(exc))
            except BaseException:
                self._changed |= changed
                raise

    def _forget_old(self) -> None:
        """Those that ended long ago, those that are too many, and of most the events."""
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
    """The error of one that ran when meshd ended, before anybody has looked what became of it."""
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
