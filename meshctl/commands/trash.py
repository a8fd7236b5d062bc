"""meshctl trash: GET /v1/trash."""

from __future__ import annotations

import time

from meshctl import render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client
from meshctl.commands.ls import shown_name
from meshctl.errors import DONE


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl trash`."""
    parser.description = "List what was removed and is still on this node, and for how long."
    parser.epilog = "example:\n  meshctl trash\n  meshctl restore minutes-1974.pdf"


def run(args: Options, client: Client) -> int:
    """Print the table."""
    answer = client.get("trash")
    if args.json:
        render.document(answer)
        return DONE
    entries = answer.get("entries") or []
    if not entries:
        render.note("The trash is empty.")
        return DONE
    now = time.time()
    rows = [
        (
            shown_name(entry),
            render.size(entry.get("size") or 0),
            entry.get("owner"),
            render.when(float(entry.get("removed") or 0)),
            entry.get("removed_by") or "-",
            render.span(float(entry.get("expires") or 0) - now),
        )
        for entry in entries
    ]
    render.say(render.table(("NAME", "SIZE", "OWNER", "REMOVED", "BY", "STAYS FOR"), rows, right=(1,)))
    return DONE
