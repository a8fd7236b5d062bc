"""The notification hook: runs the command of [notify] when a condition comes or goes: a mail, a message, a lamp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Sequence

import structlog

from meshd.model import Condition

LONGEST_S = 60.0
_WAITING_MOST = 100  # bound of the queue while the command hangs; more of it would be news of yesterday
_OUTPUT_SHOWN = 500
_OUTPUT_ENDS_S = 1.0  # after SIGKILL to all of its session
_LOG = structlog.get_logger(part="notify")


class NotifyCommand:
    """Runs the command for one event after the other, in order. Logs a run that fails or hangs; does not retry it."""

    def __init__(
        self, command: Sequence[str], who: Callable[[], dict[str, str]], *, longest_s: float = LONGEST_S
    ) -> None:
        """command: argv; empty for none. who: more fields beside the condition's, such as the node's name."""
        self._command = tuple(command)
        self._who = who
        self._longest_s = longest_s
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MOST)

    def heard(self, what: str, condition: Condition) -> None:
        """Queue an event; a listener of the board. what: raised or cleared."""
        if not self._command:
            return
        document = {
            "event": f"condition-{what}",
            "time": time.time(),
            **self._who(),
            "code": condition.code,
            "severity": str(condition.severity),
            "subject": condition.subject,
            "title": condition.title,
            "cause": condition.cause,
            "hint": condition.hint,
            "since": condition.since,
        }
        try:
            self._waiting.put_nowait(json.dumps(document).encode() + b"\n")
        except asyncio.QueueFull:
            _LOG.warning("too much to tell at once", lost=condition.title)

    async def run(self) -> None:
        """Run the command for the queued events, for as long as the node lives."""
        while True:
            document = await self._waiting.get()
            try:
                await self._tell(document)
            except OSError as exc:
                _LOG.error(
                    "cannot run the command of [notify]",
                    command=self._command[0],
                    error=exc.strerror or str(exc),
                )

    async def _tell(self, document: bytes) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        output, ended = b"", True
        try:
            async with asyncio.timeout(self._longest_s):
                output, _ = await process.communicate(document)
        except TimeoutError:
            ended = False
        finally:
            with contextlib.suppress(ProcessLookupError):  # with its whole session
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            with contextlib.suppress(TimeoutError):  # what left the session may hold its output for ever
                async with asyncio.timeout(_OUTPUT_ENDS_S):
                    await process.communicate()
        if not ended:
            _LOG.error("the command of [notify] did not end", seconds=self._longest_s)
        elif process.returncode:
            said = output.decode(errors="replace").strip()[-_OUTPUT_SHOWN:]
            _LOG.error("the command of [notify] failed", exit=process.returncode, output=said)
