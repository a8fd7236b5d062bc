"""Streams that say step by step what they do: init, join and leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshctl import render

Event = dict[str, Any]


def follow(events: Iterable[Event], as_json: bool) -> Event:
    """Shows each step on stderr (with as_json: each event on stdout) and returns the last event, `done`."""
    last: Event = {}
    for event in events:
        last = event
        if as_json:
            render.document(event)
        elif event.get("event") == "step":
            render.note(f"  {render.safe(event.get('message'))}")
        elif event.get("event") == "code":
            render.note(f"  the member at {render.safe(event.get('address'))} must show this code:")
            render.note(f"      {render.safe(event.get('code'))}")
    return last
