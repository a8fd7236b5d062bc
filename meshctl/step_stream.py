"""Renders the step events of init, join, approve and leave."""

from __future__ import annotations

import os
import sys
import time

from meshctl import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Event = dict[str, Any]


AGAIN_S = 60.0  # where a line cannot be replaced, print it again after so long


def follow(events: Iterable[Event], as_json: bool, answer: Callable[[Event], None] | None = None) -> Event:
    """Show each step on stderr (with as_json: each event on stdout) and return the last event, `done`.

    answer: called for the question, the event `confirm`.
    """
    last: Event = {}
    screen = _Screen()
    for event in events:
        last = event
        if as_json:
            render.document(event)
        elif event.get("event") == "step":
            screen.step(f"  {render.safe(event.get('message'))}", str(event.get("key") or ""))
        elif event.get("event") == "code":
            screen.code(render.safe(event.get("address")), render.safe(event.get("code")))
        if event.get("event") == "confirm" and answer is not None:
            screen.settle()
            answer(event)
    return last


def after_interrupt(network: str | None) -> str:
    """The hint after Ctrl-C in a verb that joins a ZeroTier network.

    The machine stays on the network, so that an authorization meanwhile is not in vain.
    """
    if network is None:
        return "meshctl status"
    return (
        "the same command again goes on; how it stands: meshctl status\n"
        f"if it is not the network that you mean: sudo zerotier-cli leave {network}"
    )


class _Screen:
    """The steps as lines on stderr.

    A step with a key replaces the one before with that key, while that is the last line of a terminal; elsewhere it is
    printed again each minute at most.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._key = ""  # of the last line, where that may be replaced
        self._line = ""
        self._printed: dict[str, float] = {}  # key -> when it was printed
        self._asked: set[str] = set()  # addresses whose code is on the screen

    def step(self, line: str, key: str) -> None:
        if key and key == self._key and self._live:
            self._take_away()
        elif key and not self._live and time.monotonic() - self._printed.get(key, -AGAIN_S) < AGAIN_S:
            return
        render.note(line)
        self._key, self._line = key, line
        self._printed[key] = time.monotonic()

    def code(self, address: str, code: str) -> None:
        """Print a code above the step that the person waits for, and print that step again."""
        if self._key and self._live:
            self._take_away()
        self.settle()
        if address in self._asked:
            render.note(f"  the member at {address} must show another code now: {code}")
        elif self._asked:
            render.note(f"  or, where it is the member at {address}: {code}")
        else:
            render.note(f"  the member at {address} must show this code:")
            render.note(f"      {code}")
        self._asked.add(address)

    def settle(self) -> None:
        """Leave the last line as it is, as something else is printed next."""
        self._key = ""

    def _take_away(self) -> None:
        rows = max(1, -(-render.width(self._line) // render.terminal_columns()))
        sys.stderr.write(f"\x1b[{rows}A\r\x1b[J")
