"""Traces which room of the running daemon calls which, and whether the call returns a value."""

from __future__ import annotations

import atexit
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import meshd

ROOMS = Path(meshd.__file__).parent
# A coroutine is waited for with futures, and answers at its end.
_NO_ANSWER = ("NoneType", "coroutine", "Future", "Task")


def room_of(code: CodeType) -> str:
    """`pins` for a function in meshd/pins/pin.py; "" for one that is not of the daemon."""
    try:
        return Path(code.co_filename).relative_to(ROOMS).parts[0].removesuffix(".py")
    except ValueError:
        return ""


class CallTracer:
    """Records direct calls only: a task, a thread or a library is the caller of what it is given."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rooms: dict[CodeType, str] = {}
        self._answers: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)

    def begin(self) -> None:
        """Trace this thread from now on, until the process ends."""
        atexit.register(self._write)
        sys.setprofile(self._note)

    def _room(self, code: CodeType) -> str:
        if code not in self._rooms:
            self._rooms[code] = room_of(code)
        return self._rooms[code]

    def _note(self, frame: FrameType, event: str, answer: Any) -> None:
        if event != "return" or frame.f_back is None:
            return
        callee, caller = self._room(frame.f_code), self._room(frame.f_back.f_code)
        if callee and caller and callee != caller:
            key = (caller, frame.f_back.f_code.co_qualname, callee, frame.f_code.co_qualname)
            if (kind := type(answer).__name__) not in _NO_ANSWER:
                self._answers[key].add(kind)
            else:
                self._answers[key]  # it was called

    def _write(self) -> None:
        sys.setprofile(None)
        self._file.write_text(json.dumps([[*key, sorted(kinds)] for key, kinds in self._answers.items()]))
