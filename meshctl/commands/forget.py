"""meshctl forget: DELETE /v1/peers/{name}."""

from __future__ import annotations

from meshctl import hints, render
from meshctl.arguments import Arguments, Options
from meshctl.client import LONG_ANSWER_TIMEOUT_S, Client, route
from meshctl.errors import DONE, MeshctlError, interrupted


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl forget`."""
    parser.description = (
        "Shut a node out of the mesh: no other node talks to it any more, and its copies count no more.\n"
        "It cannot come back but by a new invite. Asks first."
    )
    parser.epilog = "example:\n  meshctl forget attic"
    parser.add_argument("node", metavar="NODE", help="its name, as `meshctl peers` shows it")
    parser.add_argument("--force", action="store_true", help="even if what only that node holds is lost")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: Options, client: Client) -> int:
    """Ask, then forget the member."""
    node = render.safe(args.node)
    target = route("peers", args.node, query={"force": int(args.force)})
    if not args.yes:
        _look_for(args.node, client)
    if not render.confirm(f"Forget {node}? It is shut out, and its copies count no more.", args.yes):
        raise MeshctlError(
            f"cannot forget {node}",
            "you did not say yes; nothing was changed",
            hints.command("forget", args.node, "--yes"),
        )
    try:
        answer = client.call("DELETE", target, timeout_s=LONG_ANSWER_TIMEOUT_S)
    except KeyboardInterrupt:
        raise interrupted(
            f"cannot tell whether {node} is forgotten", "interrupted", "meshctl peers"
        ) from None
    if args.json:
        render.document(answer)
    else:
        render.say(f"{render.safe(answer.get('name') or args.node)} is forgotten.")
        render.note("To see who is left: meshctl peers")
    return DONE


def _look_for(name: str, client: Client) -> None:
    """Raises MeshctlError where no other node has that name, before the person is asked."""
    nodes = {peer.get("name"): peer for peer in client.get("peers").get("peers") or []}
    shown = render.safe(name)
    if name not in nodes:
        raise MeshctlError(
            f"cannot forget {shown}", "no member has that name", "meshctl peers", code="not-found"
        )
    if nodes[name].get("this_node"):
        raise MeshctlError(f"cannot forget {shown}", "it is this node", "meshctl leave")
