"""meshctl requests: GET /v1/requests, DELETE /v1/requests/{ref}."""

from __future__ import annotations

from meshctl import render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl requests`."""
    parser.description = (
        "List the nodes that ask to be let in: those that wait to be authorized on the mesh's ZeroTier network,\n"
        "and those that ask to join the mesh, each with the code that its own screen must show too."
    )
    parser.epilog = "examples:\n  meshctl requests\n  meshctl requests --deny 3fa91c"
    parser.add_argument("--deny", metavar="ID", help="tell a node that it is not let in")


def run(args: Options, client: Client) -> int:
    """List the requests, or deny one."""
    if args.deny is not None:
        denied = client.call("DELETE", route("requests", args.deny))
        if args.json:
            render.document(denied)
        else:
            render.say(
                f"{render.safe(denied.get('name'))} was told no, and may not ask again for ten minutes."
            )
        return DONE
    answer = client.get("requests")
    if args.json:
        render.document(answer)
        return DONE
    requests = answer.get("requests") or []
    if requests:
        render.say(render.table(("ID", "NODE", "WAITS FOR", "CODE", "SINCE"), [_row(r) for r in requests]))
        render.note("To let one in: meshctl approve ID")
    else:
        render.note("Nobody asks to be let in.")
    if answer.get("why_no_network"):
        render.note(f"Who waits on the network is not known here: {render.safe(answer['why_no_network'])}")
    return DONE


def _row(request: dict[str, Any]) -> tuple[object, ...]:
    name = request.get("name") or request.get("node") or "-"
    name = f"{name}, a member" if request.get("member") else name
    where = f" ({request['address']})" if request.get("address") else ""
    waits = "the network" if request.get("stage") == "network" else "the mesh"
    since = render.ago(float(request["since"])) if request.get("since") else "-"
    return (request.get("id"), f"{name}{where}", waits, request.get("code") or "-", since)
