"""Log lines as journal entries with fields: `journalctl -u meshd MESHD_SERVICE=kubo`.

Needs systemd-python, which compiles against libsystemd. Without it the lines go to standard error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from meshd.systemd import messages

_PRIORITY = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}
_NAMES = {"code": "CONDITION"}  # a log's key -> its field without MESHD_; the others are the key in capitals
_RAISED, _CLEARED = "condition raised", "condition cleared"

Send = Callable[..., None]  # of `FIELD=value` texts


def connected(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether standard error leads to the journal, by JOURNAL_STREAM: see systemd.exec(5)."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def sender() -> Send | None:
    """systemd-python's journal.sendv; None where it is not installed."""
    try:
        from systemd import journal
    except ImportError:
        return None
    send: Send = journal.sendv
    return send


def unavailable(environment: Mapping[str, str]) -> bool:
    """Whether standard error leads to the journal, and systemd-python for fields is missing."""
    return connected(environment) and sender() is None


def of_process(environment: Mapping[str, str]) -> Journal | None:
    """The journal, where standard error leads to it and systemd-python is there; else None."""
    send = sender() if connected(environment) else None
    return Journal(send) if send is not None else None


class Journal:
    """The last processor of structlog, and the logger behind it. Messages are for people, fields for filters."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __call__(self, _: object, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        """The entry's fields: MESSAGE, PRIORITY, and every key of the event as MESHD_KEY."""
        what = str(event.pop("event", ""))
        level = str(event.pop("level", method))
        event.pop("timestamp", None)  # the journal has its own
        entry = {
            f"MESHD_{_NAMES.get(key, key).upper()}": str(value)
            for key, value in event.items()
            if key.isidentifier() and key.isascii()
        }
        entry["PRIORITY"] = str(_PRIORITY.get(level, 6))
        entry["MESSAGE"] = _message(what, event)
        code = str(event.get("code", ""))
        if code and what in (_RAISED, _CLEARED):
            entry["MESSAGE_ID"] = messages.raised_id(code) if what == _RAISED else messages.cleared_id(code)
        return entry

    def msg(self, **entry: str) -> None:
        """Write one entry. One that cannot be written is dropped: logging must not end a part of the daemon."""
        with contextlib.suppress(OSError):
            self._send("SYSLOG_IDENTIFIER=meshd", *(f"{name}={value}" for name, value in entry.items()))

    debug = info = warning = error = critical = exception = msg


def _message(what: str, event: Mapping[str, Any]) -> str:
    """The line that `journalctl` shows."""
    if what in (_RAISED, _CLEARED):
        title = str(event.get("title", ""))
        if what == _CLEARED:
            return f"no more: {title}"
        cause, hint = event.get("cause"), event.get("hint")
        return title + (f": {cause}" if cause else "") + (f"; try: {hint}" if hint else "")
    if what == "output":
        return f"{event.get('service', '')}: {event.get('line', '')}"
    about = str(event.get("service") or event.get("part") or "")
    skipped = {"service", "part", "exception"}
    rest = " ".join(
        f"{key}={value}" for key, value in event.items() if key not in skipped and value not in ("", None)
    )
    trace = f"\n{event['exception']}" if event.get("exception") else ""
    return (f"{about}: " if about else "") + what + (f" ({rest})" if rest else "") + trace
