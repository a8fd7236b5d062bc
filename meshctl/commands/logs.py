"""meshctl logs: GET /v1/logs/{service}."""

from __future__ import annotations

import time

from meshctl import render
from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, INTERRUPTED, usage
from meshctl.numbers import whole

SERVICES = ("kubo", "cluster")


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl logs`."""
    parser.description = (
        "Print what a service logged last; with -f also what it logs from now on, until Ctrl-C.\n"
        "meshd's own log is where it was started: its standard error; under systemd: journalctl -u meshd"
    )
    parser.epilog = "examples:\n  meshctl logs kubo\n  meshctl logs cluster -n 20 -f"
    parser.add_argument("service", metavar="kubo|cluster")
    parser.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="N", help="so many lines (default: 100)"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on as new lines come")


def run(args: Options, client: Client) -> int:
    """Print lines as they come."""
    if args.service == "meshd":
        raise usage(
            "cannot show meshd's own log",
            "it is where meshd was started: its standard error",
            "journalctl -u meshd   (under systemd)",
        )
    if args.service not in SERVICES:
        shown = render.safe(args.service)
        raise usage(f"cannot show the log of {shown}", "there is no such service", "meshctl logs kubo")
    query = {"lines": args.lines, "follow": int(args.follow)}
    try:
        for event in client.stream("GET", route("logs", args.service, query=query)):
            if args.json:
                render.document(event)
            elif event.get("event") == "line":
                at = float(event.get("time") or 0)
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at > 0 else "-"
                render.say(f"{stamp}  {render.safe(str(event.get('text')).expandtabs(4))}")
    except KeyboardInterrupt:
        return INTERRUPTED  # Ctrl-C is how to end it; nothing is left half done
    return DONE


def _count(text: str) -> int:
    number = whole(text)
    if number is None:
        raise BadValueError(f"{text!r} is no number of lines")
    return number
