"""Uploads into kubo: streams a multipart body as it is, validates it, and checks that it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
import structlog

from meshd.errors import Code, MeshError
from meshd.kubo.rpc import LONG, Kubo, json_lines
from meshd.pins.multipart import AGAIN, NOTHING_KEPT, Form
from meshd.pins.storage import Storage

ADDING = "meshd:adding:"
"""Name prefix of kubo pins that protect an upload which is no entry yet."""
COLLECTION_S = 900.0  # for so long an entry waits for a garbage collection: minutes on a slow disk
_CHECK_EVERY = 16 * 1024 * 1024  # bytes between two checks of the disk
_PIECE = 32 * 1024  # bytes of the form to parse at once
_NAMES_AT_ONCE = 1000  # path segments to parse at once; each takes some microseconds
_LOG = structlog.get_logger(part="uploads")


@dataclass(frozen=True, slots=True)
class Declared:
    """The client's announcement of an upload. None: not announced, as for standard input.

    size: bytes of the files. length: bytes of the whole body.
    """

    name: str
    directory: bool | None
    size: int | None
    files: int | None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What kubo has stored: root CID, content bytes, number of regular files, and whether the root is a directory."""

    root: str
    size: int
    files: int
    directory: bool


@dataclass(slots=True)
class _Seen:
    """kubo's reports while it read the body."""

    tops: dict[str, str] = field(default_factory=dict)  # name of a top-level entry -> its CID
    # Digest of a path, as paths may be long -> content bytes.
    sizes: dict[bytes, int] = field(default_factory=dict)
    error: MeshError | None = None
    answer: aiohttp.ClientResponse | None = None  # once it has begun

    def refuse(self, error: MeshError) -> None:
        """This is not to be acknowledged. Whoever reads kubo's answer is told: aiohttp tells nobody who reads it that the
        body broke off (measured with 3.14), and kubo waits for the rest."""
        self.error = error
        if self.answer is not None:
            self.answer.close()


class Uploads:
    """The open uploads. `abort_all` before kubo is stopped: with one open it takes 30 s to end (measured)."""

    def __init__(self, kubo: Kubo, storage: Storage) -> None:
        self._kubo = kubo
        self._storage = storage
        self._tasks: set[asyncio.Task[object]] = set()
        self.closed = False
        self._names: set[str] = set()  # names of the kubo pins of open uploads
        self._roots: Counter[str] = Counter()  # roots that open uploads still need
        self._idle = asyncio.Event()
        self._idle.set()
        self._collected = asyncio.Event()  # set while no garbage collection runs
        self._collected.set()

    @property
    def count(self) -> int:
        return len(self._tasks)

    async def wait_idle(self) -> None:
        """Return when no upload is open, so that garbage may be collected."""
        await self._idle.wait()

    @contextlib.asynccontextmanager
    async def collection(self) -> AsyncIterator[None]:
        """Exclusive section for garbage collection: entered once no upload is open.

        An upload that begins meanwhile goes on, and waits in `wait_collected` before it makes its entry.
        """
        while self._tasks:  # one may have begun between the event and this step
            await self.wait_idle()
        self._collected.clear()
        try:
            yield
        finally:
            self._collected.set()

    @property
    def collecting(self) -> bool:
        """Whether a garbage collection runs."""
        return not self._collected.is_set()

    async def wait_collected(self) -> None:
        """Return when no garbage collection runs. None begins while the caller's task is counted by `enter`.

        Raises MeshError BUSY after COLLECTION_S.
        """
        try:
            async with asyncio.timeout(COLLECTION_S):
                await self._collected.wait()
        except TimeoutError:
            raise MeshError(
                Code.BUSY,
                "cannot pin that now",
                f"kubo has been collecting garbage for more than {COLLECTION_S / 60:.0f} minutes; {NOTHING_KEPT}",
                "meshctl logs kubo; then try again",
            ) from None

    async def abort_all(self) -> None:
        """Cancel every open upload; nothing of them stays pinned."""
        current = asyncio.current_task()
        tasks = [t for t in self._tasks if t is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def enter(self) -> Callable[[], None]:
        """Count the current task among the open uploads until the returned function is called.

        Raises MeshError NOT_READY while this node is leaving: nobody else would have the new content.
        """
        if self.closed:
            raise MeshError(
                Code.NOT_READY, "cannot take content", "this node is leaving its mesh", "meshctl status"
            )
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._tasks.add(task)
        self._idle.clear()

        def leave() -> None:
            self._tasks.discard(task)
            if not self._tasks:
                self._idle.set()

        return leave

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Count the current task among the open uploads inside. Raises as `enter` does."""
        leave = self.enter()
        try:
            yield
        finally:
            leave()

    @contextlib.asynccontextmanager
    async def receive(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        declared: Declared,
        on_bytes: Callable[[int], Awaitable[None]],
    ) -> AsyncIterator[Added]:
        """`add` and, at the end, `release`.

        Inside, the content is pinned and no garbage collection begins, so that the caller can make an entry of it.
        Raises as `enter` and `add` do.
        """
        with self.opened():
            added = await self.add(body, content_type, declared, on_bytes)
            try:
                yield added
            finally:
                await asyncio.shield(self.release(added.root))

    async def add(
        self,
        body: AsyncIterator[bytes],
        content_type: str,
        declared: Declared,
        on_bytes: Callable[[int], Awaitable[None]],
    ) -> Added:
        """Stream the body to kubo, which pins the result under a name that begins with ADDING.

        The caller owns that pin and must `release(root)` it. Raises MeshError: BAD_REQUEST and BAD_NAME for a body that
        is not one file or directory as a form, UPLOAD_CUT_OFF, UPLOAD_MISMATCH, DISK_FLOOR. After an error nothing is
        pinned.
        """
        match = re.fullmatch(
            r'multipart/form-data;\s*boundary="?([!#-:<-~ ]{1,200})"?', content_type.strip(), re.IGNORECASE
        )
        if match is None:
            raise MeshError(
                Code.BAD_REQUEST,
                "cannot take that upload",
                "its Content-Type is not multipart/form-data",
                AGAIN,
            )
        seen, form, pin_name = _Seen(), Form(match[1].encode()), ADDING + secrets.token_hex(8)
        self._names.add(pin_name)
        try:
            async with self._kubo.call(
                "add",
                timeout=LONG,
                data=self._checked(body, form, declared, seen),
                headers={"Content-Type": content_type},
                pin="true",
                pin_name=pin_name,
                progress="true",
            ) as answer:
                seen.answer = answer
                await self._follow(answer, seen, on_bytes)
        except MeshError as exc:
            raise seen.error or exc from exc
        except ValueError as exc:
            raise MeshError(
                Code.ENGINE_FAILED,
                "cannot add that",
                f"kubo's answer makes no sense: {exc}",
                "meshctl logs kubo",
            ) from exc
        else:
            if seen.error is not None:
                raise seen.error
            return await self._verify(seen, form)
        finally:
            self._names.discard(pin_name)

    def left_over(self, name: str, cid: str) -> bool:
        """Whether a kubo pin is left over from an upload that is not open any more."""
        return name.startswith(ADDING) and name not in self._names and not self._roots[cid]

    async def _follow(
        self, answer: aiohttp.ClientResponse, seen: _Seen, on_bytes: Callable[[int], Awaitable[None]]
    ) -> None:
        total = 0
        async for event in json_lines(answer.content):
            if event.get("Type") == "error" or "Message" in event:
                raise MeshError(
                    Code.ENGINE_FAILED,
                    "cannot add that",
                    f"kubo says: {event.get('Message')}",
                    "meshctl logs kubo",
                )
            path = event.get("Name", "")
            if not event.get("Hash"):  # progress of a file; a count of zero bytes is left out of the line
                count, digest = event.get("Bytes", 0), _digest(path)
                total += count - seen.sizes.get(digest, 0)
                seen.sizes[digest] = count
                await on_bytes(total)
            elif "/" not in path:
                seen.tops[path] = event["Hash"]

    async def _verify(self, seen: _Seen, form: Form) -> Added:
        """Check kubo's reports against the form: kubo acknowledges whatever it got, be it complete or not."""
        size, files = sum(seen.sizes.values()), len(seen.sizes)
        if (size, files) != (form.size, form.files) or len(seen.tops) != 1 or not form.closed:
            for root in seen.tops.values():
                await self.unpin(root)
            # The reason is in a trailer of kubo's response, which aiohttp does not expose.
            raise _mismatch(f"kubo took {size} of {form.size} bytes and {files} of {form.files} files")
        added = Added(next(iter(seen.tops.values())), size, files, form.directory)
        self._roots[added.root] += 1
        return added

    async def release(self, root: str) -> None:
        """Release the root's own pin: an entry holds it now, or nothing shall."""
        self._roots[root] -= 1
        if self._roots[root] <= 0:
            del self._roots[root]
            await self.unpin(root)

    async def unpin(self, root: str) -> None:
        """Remove an ADDING pin, unless another open upload has the same root. Entries have pins of their own."""
        if self._roots[root] > 0:
            return
        try:
            await self._kubo.unpin(root)
        except MeshError as exc:  # the sweep of the next start finds it by its name
            _LOG.warning("cannot take the upload's own pin away", root=root, error=str(exc))

    async def _checked(
        self, body: AsyncIterator[bytes], form: Form, declared: Declared, seen: _Seen
    ) -> AsyncIterator[bytes]:
        """Pass the body on by chunks. Raises, which cuts the connection to kubo, for a body that must not be pinned.

        kubo answers 200 for a body without its closing boundary, and pins it (measured). It answers as soon as it has
        that boundary, so it gets it last, once all has arrived and is validated.
        """
        last, unchecked = b"", _CHECK_EVERY
        try:
            async for chunk in body:
                unchecked += len(chunk)
                if unchecked >= _CHECK_EVERY:
                    unchecked = 0
                    self._storage.check(0)
                await _feed(form, chunk)
                if declared.size is not None and form.size > declared.size:
                    raise _mismatch(f"{declared.size} bytes were announced and more came")
                if form.closed:
                    last = last or chunk  # only line ends may follow, which kubo does not need
                else:
                    yield chunk
            form.finish()
            if problems := _differences(form, declared):
                raise _mismatch("; ".join(problems))
            yield last
        except MeshError as exc:
            seen.refuse(exc)
            raise
        except (aiohttp.ClientError, ConnectionError, aiohttp.http_exceptions.TransferEncodingError) as exc:
            cut_off = MeshError(
                Code.UPLOAD_CUT_OFF, "cannot pin that upload", f"it was cut off; {NOTHING_KEPT}", AGAIN
            )
            seen.refuse(cut_off)
            raise cut_off from exc


def _digest(path: str) -> bytes:
    return hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=16).digest()


async def _feed(form: Form, chunk: bytes) -> None:
    """Feed a chunk in pieces, and yield to the event loop in between: a chunk may hold many paths."""
    rested = form.names
    for start in range(0, len(chunk), _PIECE):
        form.feed(chunk[start : start + _PIECE])
        if form.names - rested >= _NAMES_AT_ONCE:
            rested = form.names
            await asyncio.sleep(0)


def _differences(form: Form, declared: Declared) -> list[str]:
    """The differences between the upload and its announcement, as text."""
    found = []
    if declared.size is not None and declared.size != form.size:
        found.append(f"{declared.size} bytes were announced and {form.size} came")
    if declared.files is not None and declared.files != form.files:
        found.append(f"{declared.files} files were announced and {form.files} came")
    if declared.directory is not None and declared.directory != form.directory:
        kinds = ("a directory", "a file") if declared.directory else ("a file", "a directory")
        found.append(f"{kinds[0]} was announced and {kinds[1]} came")
    return found


def _mismatch(problems: str) -> MeshError:
    return MeshError(Code.UPLOAD_MISMATCH, "cannot pin that upload", f"{problems}; {NOTHING_KEPT}", AGAIN)
