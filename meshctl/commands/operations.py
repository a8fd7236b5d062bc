"""meshctl operations: GET /v1/operations, GET /v1/operations/{id}, GET /v1/operations/{id}/events."""

from __future__ import annotations

from meshctl import render, step_stream
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, interrupted
from meshctl.pin_progress import Follower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a pin stream says at its end; the other verbs say step by step what they do.
_COPIES = {"pin": "pinned", "restore": "restored", "recover": "recovered"}
_ENDS = {
    "init": "This node is in the mesh.",
    "join": "This node is in the mesh.",
    "leave": "This node left the mesh.",
}


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl operations`."""
    parser.description = (
        "List what takes long and was begun on this node: pin, restore, init, join, leave; what runs, and what ended\n"
        "within a week. With ID: follow one as the one who began it does, from its beginning, and exit as that one would."
    )
    parser.epilog = "examples:\n  meshctl operations\n  meshctl operations 3fa91c07"
    parser.add_argument("id", metavar="ID", nargs="?", help="as `meshctl operations` shows it")


def run(args: Options, client: Client) -> int:
    """Lists, or follows one."""
    if args.id is not None:
        return _follow(args.id, args.json, client)
    answer = client.get("operations")
    if args.json:
        render.document(answer)
        return DONE
    operations = answer.get("operations") or []
    if not operations:
        render.note("Nothing that takes long was begun here within a week.")
        return DONE
    render.say(render.table(("ID", "VERB", "OF", "STATE", "BEGAN", "BY"), [_row(one) for one in operations]))
    render.note("To follow one: meshctl operations ID")
    return DONE


def _row(operation: dict[str, Any]) -> tuple[object, ...]:
    return (
        operation.get("id"),
        operation.get("verb"),
        operation.get("subject") or "-",
        operation.get("state"),
        render.ago(float(operation.get("began") or 0)),
        operation.get("by") or "-",
    )


def _follow(id_: str, as_json: bool, client: Client) -> int:
    operation = client.get("operations", id_)
    verb, subject = str(operation.get("verb")), str(operation.get("subject") or "")
    events = client.stream("GET", route("operations", id_, "events"))
    try:
        if verb in _COPIES:
            follower = Follower(subject, None, done=_COPIES[verb], detach=False, as_json=as_json)
            return follower.follow(events)
        step_stream.follow(events, as_json)
    except KeyboardInterrupt:
        again = f"meshctl operations {render.safe(id_)}"
        raise interrupted("cannot wait for its end", "interrupted; it goes on", again) from None
    if not as_json:
        render.say(_ENDS.get(verb, f"{render.safe(verb)} is done."))
    return DONE
