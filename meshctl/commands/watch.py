"""meshctl watch: GET /v1/events."""

from __future__ import annotations

import time

from meshctl import hints, render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOLD = frozenset({"event", "time", "title", "cause", "hint", "severity", "message"})


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl watch`."""
    parser.description = "Print what happens on this node and in its mesh, as it happens, until Ctrl-C."
    parser.epilog = "examples:\n  meshctl watch\n  meshctl watch --json"


def run(args: Options, client: Client) -> int:
    """Print events until it is interrupted, or the daemon ends, which is a failure."""
    try:
        for event in client.stream("GET", route("events")):
            if args.json:
                render.document(event)
            elif event.get("event") != "error":
                _show(event)
    except KeyboardInterrupt:
        return INTERRUPTED  # Ctrl-C is how to end it; nothing is left half done
    return DONE


def _show(event: dict[str, Any]) -> None:
    at = event.get("time")
    seconds = float(at) if isinstance(at, int | float) else time.time()
    clock = f"{render.when(seconds)[:10]} {time.strftime('%H:%M:%S', time.localtime(seconds))}"
    if event.get("event") == "condition-cleared":
        render.say(f"{clock}  over: {render.safe(event.get('title'))}")
        return
    render.say(f"{clock}  {render.safe(_words(event))}")
    if event.get("cause"):
        render.say(f"    {render.safe(event['cause'])}")
    if hint := hints.of_condition(event):
        render.say(f"    try: {render.safe(hint)}")


def _words(event: dict[str, Any]) -> str:
    """A condition as `meshctl status` shows it; any other event as its kind and its fields."""
    severity = f"{event['severity']}: " if event.get("severity") else ""
    if event.get("event") == "condition-raised":
        return f"{severity}{event.get('title')}"
    words = [str(event.get("event"))]
    if event.get("title"):
        words.append(f"{severity}{event['title']}")
    if event.get("message"):
        words.append(str(event["message"]))
    words += [
        f"{key}={value}" for key, value in event.items() if key not in _TOLD and value not in (None, "", [])
    ]
    return "  ".join(words)
