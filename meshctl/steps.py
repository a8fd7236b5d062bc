"""Streams that say step by step what they do: init, join and leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshctl import render

Event = dict[str, Any]


def follow(events: Iterable[Event], as_json: bool, answer: Callable[[Event], None] | None = None) -> Event:
    """Shows each step on stderr (with as_json: each event on stdout) and returns the last event, `done`.

    answer: called for an event that is a question, `confirm`.
    """
    last: Event = {}
    for event in events:
        last = event
        if as_json:
            render.document(event)
        elif event.get("event") == "step":
            render.note(f"  {render.safe(event.get('message'))}")
        if event.get("event") == "confirm" and answer is not None:
            answer(event)
        elif event.get("event") == "code" and not as_json:
            render.note(f"  the member at {render.safe(event.get('address'))} must show this code:")
            render.note(f"      {render.safe(event.get('code'))}")
    return last
