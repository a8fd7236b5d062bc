"""Pins several paths, some at a time, and tells of each in its turn, as if one had followed the other."""

from __future__ import annotations

from meshctl import render
from meshctl.errors import DONE, INTERRUPTED, MeshctlError, interrupted
from meshctl.parallel_uploads import ParallelUploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshctl.client import Document
    from meshctl.pin_upload import PinUpload


def pin_several(pins: list[PinUpload], as_json: bool) -> int:
    """Pin all; after a failure none is begun any more. The exit code is that of the first failure, else 6 for too few copies."""
    return _Several(pins, as_json).run()


class _Several:
    def __init__(self, pins: list[PinUpload], as_json: bool) -> None:
        self._pins = pins
        self._as_json = as_json
        self._uploads = ParallelUploads([pin.upload for pin in pins])
        self._code = DONE
        self._failed = DONE  # exit code of the first failure
        self._turn = 0

    def run(self) -> int:
        with self._uploads:
            try:
                self._take_turns()
            except KeyboardInterrupt:
                return self._interrupted()
        return self._failed or self._code

    def _take_turns(self) -> None:
        while self._turn < len(self._pins) and not (self._failed and not self._uploads.begun(self._turn)):
            self._pins[self._turn].note_symlinks()
            try:
                self._follow()
            except MeshctlError as failure:
                self._tell(failure, self._not_begun() if not self._failed else "")
            self._turn += 1

    def _follow(self) -> None:
        pin = self._pins[self._turn]
        self._code = pin.follower.follow(self._events(pin)) or self._code

    def _events(self, pin: PinUpload) -> Iterator[Document]:
        for event in self._uploads.events(self._turn):
            yield {**event, "path": pin.path} if self._as_json else event

    def _tell(self, failure: MeshctlError, not_begun: str) -> None:
        """Tell of a failure, of which path it is, and with the first one what was not begun."""
        pin = self._pins[self._turn]
        if pin.tree.name not in failure.title and pin.path not in failure.title:
            failure.explain(f"{failure.detail or 'it failed'}; this was {pin.path}")
        if not_begun:
            failure.explain(f"{failure.detail or 'it failed'}; {not_begun}")
        failure.document = {**failure.document, "path": pin.path}
        self._failed = self._failed or render.tell(failure, self._as_json)

    def _not_begun(self) -> str:
        names = [pin.tree.name for n, pin in enumerate(self._pins) if not self._uploads.begun(n)]
        return f"not begun: {render.names(names, limit=5)}" if names else ""

    def _interrupted(self) -> int:
        """End all that is under way, and say of each what is left behind."""
        ended = [self._uploads.over(n) for n in range(len(self._pins))]
        self._uploads.give_up()
        not_begun = self._not_begun()
        while self._turn < len(self._pins) and self._uploads.begun(self._turn):
            try:
                self._follow()
            except MeshctlError as failure:
                left = failure if ended[self._turn] else self._pins[self._turn].left()
                self._failed = DONE  # each is told
                self._tell(left, not_begun)
                not_begun = ""
            self._turn += 1
        if not_begun:
            render.tell(interrupted("cannot pin the rest", f"interrupted; {not_begun}"), self._as_json)
        return INTERRUPTED
