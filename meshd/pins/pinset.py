"""The pinset: the one reader of the cluster's list, which keeps its index (`index.py`) up to date for everybody else.

It does not read the list while the cluster's datastore shows no write, nor a large, busy one for every query (see
`allowed_age`). In between it applies each read of a single record, so that changes by this node show at once. What
deletes data does not rely on this alone: it reads each record anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

import structlog

from meshd import db
from meshd.cluster.datastore import Datastore, Mark, written_at
from meshd.cluster.rest import Cluster, ListCutShortError
from meshd.errors import Code, MeshError
from meshd.model import Pin
from meshd.pins import reading
from meshd.pins.index import PART, CatalogueIndex

SMALL = 1000  # entries; a list up to that is read for every query
_OLDEST_S = 10.0  # the highest age of a large one
_SETTLED_S = 1.0  # after its last write the cluster surely shows it: it writes first
_LOOKS_MOST = 1000  # reads of single records to remember while no reading of the list runs
_LATE_S = 60.0  # a response comes no later than that after its request
_TRIES = 3
_LOG = structlog.get_logger(part="catalogue")


def allowed_age(count: int, took_s: float) -> float:
    """The highest age of a list of `count` entries, in seconds. took_s: the duration of its reading. Pure.

    So reading takes a tenth of the time at most, however often it is requested.
    """
    return 0.0 if count <= SMALL else min(_OLDEST_S, 10 * took_s)


class Pinset:
    """`refresh`, then `query`; or `look` at one record. Stop it before the cluster's client is closed."""

    def __init__(self, cluster: Cluster, datastore: Datastore, path: Path | None) -> None:
        """datastore: the cluster's. path: the index's file; None for an index in memory."""
        self._cluster = cluster
        self._datastore = datastore
        self._index = CatalogueIndex(path)
        cluster.listeners.append(self._seen)
        self._read_mark: Mark | None = None  # what the list was read at, where it was settled by then
        self._at: float | None = None  # when the last whole reading began, on the monotonic clock
        self._began = 0.0  # the same, of the one that goes on where one does
        self._took_s = 0.0
        self._count = 0
        self._reading: asyncio.Task[None] | None = None
        self._looks: dict[
            str, float
        ] = {}  # CID -> when it was asked about, of those that may be newer than a reading
        self._news: dict[str, Pin | None] = {}  # what some of them said, which the index does not have yet
        self._changing = asyncio.Lock()
        self._losses = 0  # how often the index was made anew
        self.version = 0  # changes whenever an entry comes, goes or changes

    async def refresh(self, *, anew: bool = False) -> bool:
        """Bring the index up to date with the list; whether it is as of now. anew: it must be, even if that is large.

        Callers share one reading. Raises MeshError NOT_READY, ENGINE_FAILED: even where nothing was written since the
        last reading, and the cluster is down.
        """
        asked = time.monotonic()
        if (before := self._at) is not None and await self._unmoved() and self._at == before:
            return True
        while self._at is None or self._at < asked - (
            0.0 if anew else allowed_age(self._count, self._took_s)
        ):
            await self._read()
        return self._at >= asked

    async def reread(self) -> None:
        """Read the list unconditionally: for callers that unpin content next. Raises MeshError."""
        asked = time.monotonic()
        while self._at is None or self._at < asked:
            await self._read()

    async def query(self, question: Callable[[CatalogueIndex], db.T]) -> db.T:
        """Query the index, after applying all reads of single records since. Raises MeshError."""
        for _ in range(_TRIES):
            try:
                async with self._changing:
                    await self._take_over_looks()
                    return await _whole(question, self._index)
            except db.Discarded as exc:
                self._lost(exc)
                await self.reread()
        raise MeshError(
            Code.BAD_STATE,
            "cannot look that up",
            "the index of the catalogue fails again and again",
            "see what is wrong with the machine: sudo dmesg | tail; then start meshd again",
        )

    async def ask(self, question: Callable[[CatalogueIndex], db.T], *, anew: bool = False) -> db.T:
        """`refresh`, then `query`. Raises MeshError."""
        await self.refresh(anew=anew)
        return await self.query(question)

    async def each_part(self) -> AsyncGenerator[list[Pin]]:
        """All entries, in parts. Each entry that exists throughout comes exactly once, whatever changes meanwhile."""
        after = ""
        while part := await self.query(partial(CatalogueIndex.part, after=after, limit=PART)):
            yield part
            if len(part) < PART:
                return
            after = part[-1].cid

    def was_read(self, age_s: float) -> bool:
        """Whether the last reading is at most so many seconds old."""
        return self._at is not None and self._at >= time.monotonic() - age_s

    async def look(self, cid: str) -> Pin | None:
        """Read one record, as it is now. Raises MeshError."""
        return await self._cluster.allocation(cid)

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self.close()

    async def close(self) -> None:
        """Close the index. A later query reopens it."""
        await asyncio.to_thread(self._index.close)

    def release(self) -> None:
        """`close` for other threads. Blocks."""
        self._index.close()

    # -- reads of single records -----------------------------------------------------------------------------------

    def _seen(self, cid: str, pin: Pin | None, asked: float) -> None:
        """Apply the read of one record. asked: when it was requested. The latest request counts."""
        if asked >= self._looks.get(cid, self._at or 0.0):
            self._looks[cid] = asked
            self._news[cid] = pin

    async def _take_over_looks(self) -> None:
        # A read older than the running reading waits for its end, and counts only if that fails.
        news = {cid: pin for cid, pin in self._news.items() if self._looks.get(cid, 0.0) >= self._began}
        self._news = {cid: pin for cid, pin in self._news.items() if cid not in news}
        if news:
            changed = True  # it is applied even where the caller is cancelled
            try:
                changed = await _whole(self._index.apply, news)
            finally:
                self.version += changed
        if len(self._looks) > _LOOKS_MOST and (self._reading is None or self._reading.done()):
            self._forget_looks(time.monotonic() - _LATE_S)

    def _forget_looks(self, before: float) -> None:
        self._looks = {cid: asked for cid, asked in self._looks.items() if asked >= before}
        self._news = {cid: pin for cid, pin in self._news.items() if cid in self._looks}

    # -- the whole list --------------------------------------------------------------------------------------------

    async def _unmoved(self) -> bool:
        """Whether the cluster has written nothing since the last reading. Raises MeshError where it does not answer."""
        if self._read_mark is None:
            return False
        await self._cluster.version()  # before the look: what it has shown to anybody by now, it has written
        return await asyncio.to_thread(self._datastore.mark) == self._read_mark

    async def _read(self) -> None:
        """Await the running reading, or a new one."""
        if self._reading is None or self._reading.done():  # awaiting a finished one would loop for ever
            self._reading = asyncio.create_task(self._read_list(), name="read-pinset")
            self._reading.add_done_callback(_retrieve)
        await asyncio.shield(self._reading)

    async def _read_list(self) -> None:
        for left in reversed(range(_TRIES)):
            try:
                return await self._read_once()
            except db.Discarded as exc:
                self._lost(exc)
            except ListCutShortError as exc:
                if not left:
                    raise
                _LOG.info("the list is read again", why=exc.detail)
            finally:
                self._began = self._at or 0.0
        raise MeshError(
            Code.BAD_STATE,
            "cannot read the catalogue",
            "its index fails again and again",
            "see what is wrong with the machine: sudo dmesg | tail; then start meshd again",
        )

    async def _read_once(self) -> None:
        mark = await asyncio.to_thread(self._datastore.mark)
        settled = mark is not None and written_at(mark) <= time.time() - _SETTLED_S
        at = self._began = time.monotonic()
        read = reading.Reading(self._index)
        losses = self._losses
        try:
            await self._take_over_list(read, at)
        finally:  # even where it broke off, as the next reading finds that part unchanged
            self.version += read.changed
        if self._losses != losses:  # by a query meanwhile: what was read before that is not in it
            raise db.Discarded("it failed while the list was read")
        self._count = (await asyncio.to_thread(self._index.sums)).entries
        self._at, self._took_s = at, time.monotonic() - at
        self._read_mark = mark if settled else None
        self._forget_looks(at)

    async def _take_over_list(self, read: reading.Reading, at: float) -> None:
        """Apply the list part by part, so that queries can run in between."""
        lines: list[bytes] = []
        async with contextlib.aclosing(self._cluster.records()) as records:
            async for line in records:
                lines.append(line)
                if len(lines) == reading.PART:
                    await self._change(read.take, lines, at)
                    lines = []
        if lines:
            await self._change(read.take, lines, at)
        async with self._changing:
            await _whole(read.end, self._newer(at))

    async def _change(
        self, take: Callable[[list[bytes], set[str]], None], lines: list[bytes], at: float
    ) -> None:
        async with self._changing:
            await _whole(take, lines, self._newer(at))

    def _newer(self, at: float) -> set[str]:
        """CIDs of records that were read since then."""
        return {cid for cid, asked in self._looks.items() if asked >= at}

    def _lost(self, why: db.Discarded) -> None:
        _LOG.warning("the index of the catalogue is made anew", why=str(why))
        self._at = self._read_mark = None
        self._losses += 1


async def _whole(work: Callable[..., db.T], *arguments: object) -> db.T:
    """Run `work` in a thread, to its end even where the caller is cancelled: later work must not overtake it."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve a task's exception: callers get it, and maybe none waits any more."""
    if not task.cancelled():
        task.exception()
