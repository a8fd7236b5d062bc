"""meshctl init: POST /v1/mesh."""

from __future__ import annotations

from meshctl import render, step_stream
from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, Document, route
from meshctl.errors import DONE, interrupted
from meshctl.numbers import is_network_id


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl init`."""
    parser.description = (
        "Start a mesh with this node as its first. Where it has one already, that is said; exits 0."
    )
    parser.epilog = "examples:\n  meshctl init --name archive\n  meshctl init --network 8056c2e21c000001"
    parser.add_argument("--name", default="mesh", help="what to call the mesh (default: %(default)s)")
    parser.add_argument(
        "--network",
        type=network_id,
        metavar="ID",
        help="the ZeroTier network to be on: 16 hex digits; it is joined first",
    )


def run(args: Options, client: Client) -> int:
    """Found the mesh, or report that this node is in it already."""
    body: Document = {"name": args.name}
    if args.network is not None:
        body["network"] = args.network
    try:
        done = step_stream.follow(client.stream("POST", route("mesh"), body), args.json)
    except KeyboardInterrupt:
        hint = step_stream.after_interrupt(args.network)
        raise interrupted("cannot tell whether the mesh was made", "interrupted", hint) from None
    if args.json:
        return DONE
    mesh = render.safe((done.get("mesh") or {}).get("name"))
    node = render.safe(done.get("node"))
    if done.get("created"):
        render.say(f"This node, {node}, is the first of the mesh {mesh}.")
    else:
        render.say(f"This node, {node}, is in the mesh {mesh} already; nothing was changed.")
    _tell_next((done.get("mesh") or {}).get("network"))
    return DONE


def _tell_next(network: object) -> None:
    if not network:
        render.note("To admit the next node: meshctl invite")
        return
    render.note(
        f"To admit the next node, type on it: meshctl join {render.safe(network)}   then here: meshctl requests"
    )
    render.note("Or make an invite for it: meshctl invite")


def network_id(text: str) -> str:
    """Parse a ZeroTier network's id; in lower case."""
    if not is_network_id(text):
        raise BadValueError(f"{text!r} is no network id; one has 16 hex digits: 8056c2e21c000001")
    return text.lower()
