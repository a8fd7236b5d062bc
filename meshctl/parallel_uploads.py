"""Uploads several entries, four at a time, and hands over their events in the order in which they were given.

So the output of many is that of one after the other: what is heard of a later one waits until its turn. Each upload
has a connection of its own. That of one that is done is not used again: where the daemon closes an idle connection at
the moment when a request is sent on it, nobody can tell what became of the request.
"""

from __future__ import annotations

import _thread
import os

from meshctl.client import lost
from meshctl.interruptible_socket import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from meshctl.client import Document
    from meshctl.upload import Upload

AT_ONCE = 4
_MARGIN_S = 1.0


class _Job:
    """One upload, and what was heard of it."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.begun = False
        self.over = False
        self.failure: BaseException | None = None
        self.heard: list[Document] = []
        self.taken = False  # something was heard: the daemon does not refuse it from the start
        self.running = _thread.allocate_lock()  # held by its thread, for as long as that runs


class ParallelUploads:
    """The uploads of one command. Use as a context manager: however it ends, no connection is left open.

    Each is begun when the daemon has taken those before it, so that one that takes nothing, or nothing more, is asked
    once. After a failure none is begun; those that are under way go on. Of entries with one name, each waits for the
    end of the one before it, as the last one shall be the newest.
    """

    def __init__(self, uploads: Sequence[Upload]) -> None:
        self._jobs = [_Job(upload) for upload in uploads]
        self._given_up = False
        self._told, self._tell = os.pipe2(
            os.O_CLOEXEC | os.O_NONBLOCK
        )  # a byte for each time that something was heard

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()
        if all(not job.running.locked() for job in self._jobs):
            os.close(self._told)
            os.close(self._tell)

    def events(self, number: int) -> Iterator[Document]:
        """The events of one upload, as they come; nothing where it was not begun. Raises what the upload raises."""
        job = self._jobs[number]
        while True:
            self._begin()
            over = job.over or not job.begun or self._given_up  # asked first: nothing is heard after it
            while job.heard:
                yield job.heard.pop(0)
            if over:
                break
            if not job.heard and not job.over:
                wait_readable(self._told, None)
                os.read(self._told, 4096)
        if job.failure is not None:
            raise job.failure
        if job.begun and not job.over:
            raise lost("it was not waited for")  # its file cannot be read, and neither does that fail

    def begun(self, number: int) -> bool:
        """Whether anything of it was sent. Final for all, once one has failed or all are over."""
        return self._jobs[number].begun

    def over(self, number: int) -> bool:
        """Whether it has come to its end, good or bad."""
        return self._jobs[number].over

    def give_up(self) -> None:
        """End what is under way at once, and begin nothing more."""
        self._given_up = True
        under_way = [job for job in self._jobs if job.begun and not job.over]
        for job in under_way:
            job.upload.give_up()
        for job in under_way:
            if job.running.acquire(timeout=job.upload.longest_end_s + _MARGIN_S):
                job.running.release()

    def _begin(self) -> None:
        """Begin as many as may be under way."""
        if self._given_up:
            return
        for job in self._jobs:
            if job.begun:
                continue
            under_way = [other for other in self._jobs if other.begun and not other.over]
            waits = any(not other.taken for other in under_way)
            failed = any(other.failure is not None for other in self._jobs)
            same_name = any(other.upload.tree.name == job.upload.tree.name for other in under_way)
            if waits or failed or same_name or len(under_way) >= AT_ONCE:
                return
            job.begun = True
            job.running.acquire()
            try:
                _thread.start_new_thread(self._run, (job,))
            except BaseException as error:
                job.failure = error
                job.over = True
                job.running.release()
                raise

    def _run(self, job: _Job) -> None:
        """The thread of one upload."""
        try:
            for event in job.upload.events(interruptible=False):
                job.heard.append(event)
                job.taken = True
                self._wake()
        except BaseException as error:  # noqa: BLE001 - raised where its turn comes
            job.failure = error
        finally:
            job.over = True
            self._wake()
            job.running.release()

    def _wake(self) -> None:
        try:
            os.write(self._tell, b".")
        except BlockingIOError:
            pass  # there is enough to read there already
