"""What a stream of copies looks like to a person: pin, restore, and what else makes copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshctl import render
from meshctl.errors import DEGRADED, DONE

Event = dict[str, Any]


class Follower:
    """Shows the events of one pin stream as they come, and remembers how far it is.

    name: what the person calls it. total: bytes to come, if known. done: the word of the last line ("pinned").
    """

    def __init__(self, name: str, total: int | None, *, done: str, detach: bool, as_json: bool) -> None:
        self.name = name
        self.kept = False  # an `entry` event came: from here on the mesh goes on by itself
        self._done = done
        self._detach = detach
        self._as_json = as_json
        self._progress = render.Progress(name, total)

    def follow(self, events: Iterable[Event]) -> int:
        """Reads to the end. Returns the exit code; raises MeshctlError as the stream does."""
        code = DONE
        try:
            for event in events:
                kind = event.get("event")
                if kind == "entry":
                    self.kept = True
                    self.name = str(event.get("name") or self.name)
                if self._as_json:
                    render.document(event)
                if kind == "done":
                    code = self._finish(event)
                elif not self._as_json:
                    self._show(kind, event)
        finally:
            self._progress.clear()
        return code

    def _show(self, kind: object, event: Event) -> None:
        if kind == "progress":
            self._progress.update(_number(event.get("bytes")))
            return
        self._progress.clear()
        if kind == "copy":
            node = render.safe(event.get("node"))
            render.note(f"  copy on {node}  {event.get('held')}/{event.get('wanted')}")
        elif kind == "step":
            render.note(f"  {render.safe(event.get('message'))}")

    def _finish(self, event: Event) -> int:
        entry: Event = event.get("entry") or {}
        degraded = bool(event.get("degraded")) and not self._detach
        if not self._as_json:
            self._progress.clear()
            self._say_result(entry, degraded)
            if degraded:
                self._say_missing(event.get("missing") or [])
        return DEGRADED if degraded else DONE

    def _say_result(self, entry: Event, degraded: bool) -> None:
        name = render.safe(entry.get("name") or self.name)
        held = [str(copy.get("node")) for copy in entry.get("copies") or [] if copy.get("state") == "held"]
        number = len(held) if entry.get("held") is None else _number(entry.get("held"))
        wanted = entry.get("wanted")
        short = degraded or (self._detach and str(number) != str(wanted))
        of = f" of {wanted}" if short and wanted != "all" else ""
        copies = f"{number}{of} {'copy' if number == 1 and not of else 'copies'}"
        where = f": {render.names(held)}" if held else ""
        render.say(f"{self._done} {name}  {render.size(_number(entry.get('size')))}  {copies}{where}")
        if self._detach:
            render.note(f"The other copies are made in the background. To look: meshctl ls {name}")

    def _say_missing(self, missing: list[Event]) -> None:
        name = render.safe(self.name)
        render.note(f"meshctl: cannot make every copy of {name} now; what is missing is made when it can be:")
        for copy in missing:
            detail = copy.get("detail")
            why = f": {render.safe(detail)}" if detail else ""
            render.note(f"  none on {render.safe(copy.get('node'))}  {render.safe(copy.get('state'))}{why}")
        if not missing:
            render.note("  the mesh has fewer nodes than copies were asked for")
        render.note(f"  try: meshctl ls {name}   (later), or meshctl status")


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
