"""meshctl leave: DELETE /v1/mesh."""

from __future__ import annotations

from meshctl import render, step_stream
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, MeshctlError, interrupted


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl leave`."""
    parser.description = (
        "Take this node out of its mesh. The copies on this node go; the other nodes keep theirs.\n"
        "It waits until each entry has its copies on nodes that stay, and is refused where that cannot be,\n"
        "unless --force is given. Asks first."
    )
    parser.epilog = "example:\n  meshctl leave"
    parser.add_argument(
        "--force", action="store_true", help="at once, even if what only this node holds is lost"
    )
    parser.add_argument("--network", action="store_true", help="leave the ZeroTier network too")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: Options, client: Client) -> int:
    """Ask, then leave the mesh."""
    lost = " What only this node holds is lost." if args.force else ""
    question = f"Leave the mesh? The copies on this node go; the other nodes keep theirs.{lost}"
    if not render.confirm(question, args.yes):
        raise MeshctlError(
            "cannot leave the mesh", "you did not say yes; nothing was changed", "meshctl leave --yes"
        )
    try:
        query: dict[str, str | int | None] = {"force": int(args.force), "network": int(args.network)}
        step_stream.follow(client.stream("DELETE", route("mesh", query=query)), args.json)
    except KeyboardInterrupt:
        raise interrupted("cannot tell whether this node left", "interrupted", "meshctl status") from None
    if not args.json:
        render.say("This node left the mesh. Its copies are gone; the other nodes keep theirs.")
        render.note("To start or join another: meshctl init, meshctl join")
    return DONE
