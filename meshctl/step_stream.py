"""Streams that say step by step what they do: init, join, approve and leave."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from meshctl import render

Event = dict[str, Any]

AGAIN_S = 60.0  # where a line cannot be renewed in its place, it is printed again after so long


def follow(events: Iterable[Event], as_json: bool, answer: Callable[[Event], None] | None = None) -> Event:
    """Shows each step on stderr (with as_json: each event on stdout) and returns the last event, `done`.

    answer: called for an event that is a question, `confirm`.
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
    """What to type after Ctrl-C in what puts this machine on a ZeroTier network. It stays there, so that who authorizes it
    meanwhile does not do it in vain."""
    if network is None:
        return "meshctl status"
    return (
        "the same command again goes on; how it stands: meshctl status\n"
        f"if it is not the network that you mean: sudo zerotier-cli leave {network}"
    )


class _Screen:
    """The steps as lines on stderr.

    A step with a key takes the place of the one before with that key while that is the last line of a terminal; elsewhere
    it is printed again at most each minute.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._key = ""  # of the last line, where that may be renewed
        self._line = ""
        self._printed: dict[str, float] = {}  # key -> when
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
        """Above what the person waits for, which is said again."""
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
        """What is there stays: something else is printed next."""
        self._key = ""

    def _take_away(self) -> None:
        rows = max(1, -(-render.width(self._line) // render.terminal_columns()))
        sys.stderr.write(f"\x1b[{rows}A\r\x1b[J")
