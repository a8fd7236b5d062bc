"""Renders the event stream of replication: of pin, restore, and whatever else makes copies."""

from __future__ import annotations

import time

from meshctl import hints, render
from meshctl.copy_progress import Fetching
from meshctl.errors import DEGRADED, DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Event = dict[str, Any]


class Follower:
    """Shows the events of one stream as they come, and keeps its state.

    name: as the person typed it. total: bytes to come, if known. done: the word of the last line ("pinned").
    """

    def __init__(self, name: str, total: int | None, *, done: str, detach: bool, as_json: bool) -> None:
        self.name = name
        self.kept = False  # an `entry` event came: from then on the mesh goes on by itself
        self._wanted = 0  # replicas, by the `entry` event
        self._done = done
        self._detach = detach
        self._as_json = as_json
        self._progress = render.Progress(name, total)
        self._fetching = Fetching()
        self._line = render.Line()

    def follow(self, events: Iterable[Event]) -> int:
        """Read the stream to its end; the exit code. Raises MeshctlError as the stream does."""
        code = DONE
        try:
            for event in events:
                kind = event.get("event")
                if kind == "entry":
                    self.kept = True
                    self.name = str(event.get("name") or self.name)
                    self._wanted = _number(event.get("wanted"))
                if self._as_json:
                    render.document(event)
                if kind == "done":
                    code = self._finish(event)
                elif not self._as_json:
                    self._show(kind, event)
        finally:
            self._clear()
        return code

    def _clear(self) -> None:
        self._progress.clear()
        self._line.clear()

    def _show(self, kind: object, event: Event) -> None:
        if kind == "progress":
            self._progress.update(_number(event.get("bytes")))
            return
        node = str(event.get("node"))
        if kind == "fetching":
            self._fetching.heard(
                node, _number(event.get("bytes")), _number(event.get("size")), time.monotonic()
            )
        else:
            self._clear()
        if kind == "copy":
            self._fetching.ended(node)
            render.note(f"  copy on {render.safe(node)}  {event.get('held')}/{event.get('wanted')}")
        elif kind == "step":
            render.note(f"  {render.safe(event.get('message'))}")
        if line := self._fetching.line(time.monotonic(), render.terminal_columns()):
            self._line.draw(line)

    def _finish(self, event: Event) -> int:
        entry: Event = event.get("entry") or {}
        degraded = bool(event.get("degraded")) and not self._detach
        self._wanted = self._wanted or _number(entry.get("wanted"))
        if not self._as_json:
            self._clear()
            self._say_result(entry, degraded)
            if degraded:
                self._say_missing(event.get("missing") or [], _held(entry))
        return DEGRADED if degraded else DONE

    def _say_result(self, entry: Event, degraded: bool) -> None:
        name = str(entry.get("name") or self.name)
        nodes = [str(copy.get("node")) for copy in entry.get("copies") or [] if copy.get("state") == "held"]
        held = _held(entry)
        going_on = self._detach and held < self._wanted
        of = f" of {self._wanted}" if self._wanted and (degraded or going_on) else ""
        copies = f"{held}{of} {'copy' if held == 1 and not of else 'copies'}"
        where = f": {render.names(nodes)}" if nodes else ""
        size = render.size(_number(entry.get("size")))
        render.say(f"{self._done} {render.safe(name)}  {size}  {copies}{where}")
        if going_on:
            look = hints.command("ls", name)
            render.note(f"The other copies are made in the background. To look: {look}")
        elif name.startswith("-") and not degraded:
            render.note(f"Its name begins with -, so type it behind --: {hints.command('get', name)}")

    def _say_missing(self, missing: list[Event], held: int) -> None:
        name = render.safe(self.name)
        render.note(f"meshctl: cannot make every copy of {name} now; what is missing is made when it can be:")
        for copy in missing:
            render.note(f"  {no_copy(copy)}")
        more = self._wanted - held - len(missing)
        if missing:
            if more > 0:
                render.note(f"  {more} more when other nodes join")
            render.note(f"  try: {hints.command('ls', self.name)}   (later), or meshctl status")
            return
        nodes = render.count(held, "node")  # no node is missing, so those that hold it are all
        others = f"the other {more} copies are" if more > 1 else "the other copy is"
        render.note(f"  the mesh has {nodes}; {others} made when nodes join")
        render.note("  try: meshctl invite   (for the owner of one more machine)")


def no_copy(copy: Event) -> str:
    """One node that does not hold a copy, or where that is unknown, and why."""
    node = render.safe(copy.get("node") or "another node")
    detail = render.safe(copy.get("detail") or "")
    state = copy.get("state")
    if state == "unknown":
        said = f"{node} is away"
        return said if detail in {"", "it is away"} else f"{said}: {detail}"
    if state == "fetching":
        return f"not yet on {node}: it is on its way there{f' ({detail})' if detail else ''}"
    why = detail or ("it refused" if state == "refused" else "")
    return f"none on {node}{f': {why}' if why else ''}"


def _held(entry: Event) -> int:
    if entry.get("held") is not None:
        return _number(entry["held"])
    return sum(copy.get("state") == "held" for copy in entry.get("copies") or [])


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
