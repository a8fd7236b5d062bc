"""meshctl invite: GET and POST /v1/invites, DELETE /v1/invites/{id}."""

from __future__ import annotations

from meshctl import render
from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, Document, route
from meshctl.errors import DONE
from meshctl.numbers import whole

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl invite`."""
    parser.description = (
        "Print the line that admits one more node. It is good for one node and until it expires.\n"
        "Only that line goes to standard output, so that it can be piped."
    )
    parser.epilog = (
        "examples:\n"
        "  meshctl invite\n"
        "  meshctl invite --expires 3d | ssh attic meshctl join\n"
        "  meshctl invite --for a1b2c3d4e5\n"
        "  meshctl invite --list"
    )
    parser.add_argument(
        "--for",
        dest="node",
        metavar="ADDRESS",
        help="the new machine's ZeroTier address (zerotier-cli info), to let it onto the network at once",
    )
    what = parser.only_one_of()
    what.add_argument(
        "--expires",
        type=_span_s,
        default=86400.0,
        metavar="SPAN",
        help="30min, 24h, 3d; at most 30d (default: 24h)",
    )
    what.add_argument("--list", action="store_true", help="list the invites that this node gave out")
    what.add_argument("--revoke", metavar="ID", help="take an invite back that was not used yet")


def run(args: Options, client: Client) -> int:
    """Issue, list or revoke invites."""
    if args.list:
        return _list(args, client)
    if args.revoke is not None:
        answer = client.call("DELETE", route("invites", args.revoke))
        if args.json:
            render.document(answer)
        else:
            render.say(f"The invite {render.safe(args.revoke)} admits nobody any more.")
        return DONE
    body: Document = {"expires_s": args.expires}
    if args.node is not None:
        body["node"] = args.node
    answer = client.call("POST", route("invites"), body)
    if args.json:
        render.document(answer)
        return DONE
    render.say(render.safe(answer.get("invite")))
    until = render.when(float(answer.get("expires") or 0))
    render.note(f"It admits one node, until {until}. Who has it can join: send it as you would send a key.")
    render.note("On the new machine: meshctl join   and paste the line.")
    if answer.get("note"):
        render.note(render.safe(answer["note"]))
    render.note(f"To take it back: meshctl invite --revoke {render.safe(answer.get('id'))}")
    return DONE


def _list(args: Options, client: Client) -> int:
    answer = client.get("invites")
    if args.json:
        render.document(answer)
        return DONE
    invites = answer.get("invites") or []
    if not invites:
        render.note("No invites. To make one: meshctl invite")
        return DONE
    rows = [
        (
            invite.get("id"),
            render.when(float(invite.get("created") or 0)),
            render.when(float(invite.get("expires") or 0)),
            invite.get("used_by") or "-",
        )
        for invite in invites
    ]
    render.say(render.table(("ID", "CREATED", "EXPIRES", "USED BY"), rows))
    return DONE


def _span_s(text: str) -> float:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    number, unit = whole(digits), _UNITS.get(text[len(digits) :])
    if number is None or unit is None or number == 0:
        raise BadValueError(f"{text!r} is no span; spans look like 30min, 24h or 3d")
    if number * unit > 30 * 86400:
        raise BadValueError(f"{text!r} is too long; 30d is the most")
    return float(number * unit)
