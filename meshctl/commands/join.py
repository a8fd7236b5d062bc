"""meshctl join: POST /v1/mesh/join, POST /v1/mesh/join/confirm."""

from __future__ import annotations

import os
import select
import sys

from meshctl import render, step_stream
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, Document, route
from meshctl.errors import DONE, interrupted, usage
from meshctl.numbers import is_network_id

PASTE_PAUSE_S = 0.2  # lines that follow each other faster are pasted, not typed
INVITE_LIMIT = 1 << 16


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl join`."""
    parser.description = (
        "Join a mesh with the line that `meshctl invite` printed on one of its nodes.\n"
        "Without INVITE it is asked for, so that it stays out of the shell's history; or it is read from a pipe.\n"
        "With the id of a ZeroTier network (16 hex digits): join that network, find the mesh on it, show a code, and\n"
        "wait until somebody on a member approves this node."
    )
    parser.epilog = (
        "examples:\n  meshctl join\n  meshctl join --name attic < invite.txt\n  meshctl join 8056c2e21c000001"
    )
    parser.add_argument(
        "invite",
        metavar="INVITE",
        nargs="*",
        help="the line (spaces and line breaks do not matter), or a network's id",
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="by network: take the first member that says yes, whoever it is, without comparing codes",
    )
    parser.add_argument("--name", metavar="NODE", help="what to call this node (default: the name it has)")


def run(args: Options, client: Client) -> int:
    """Join, and show what it waits for."""
    invite = "".join("".join(args.invite).split()) or _ask()
    by_network = is_network_id(invite)
    body: Document = {"invite": invite}
    if by_network:
        if not args.yes and not sys.stdin.isatty():
            raise usage(
                f"cannot join by network id {invite}",
                "there is no terminal on which to ask whether the codes are the same",
                f"meshctl join {invite} at a terminal; or with --yes, where nobody else is on the network",
            )
        body = {"network": invite.lower(), "confirm": not args.yes}
    if args.name is not None:
        body["name"] = args.name
    try:
        events = client.stream("POST", route("mesh", "join"), body)
        done = step_stream.follow(events, args.json, lambda event: _confirm(event, client))
    except KeyboardInterrupt:
        hint = step_stream.after_interrupt(invite.lower() if by_network else None)
        raise interrupted("cannot tell whether this node joined", "interrupted", hint) from None
    if args.json:
        return DONE
    mesh: Document = done.get("mesh") or {}
    node = render.safe(done.get("node"))
    if done.get("created"):
        members = render.count(int(mesh.get("members") or 1), "member")
        render.say(
            f"This node, {node}, joined the mesh {render.safe(mesh.get('name'))}, which has {members} now."
        )
    else:
        render.say(
            f"This node, {node}, is in the mesh {render.safe(mesh.get('name'))} already; nothing was changed."
        )
    render.note("To see how it is: meshctl status")
    return DONE


def _confirm(event: Document, client: Client) -> None:
    """Ask whether the admitting member is the right one: anybody on the network could admit, to a mesh of its own."""
    address, code = render.safe(event.get("address")), render.safe(event.get("code"))
    render.note(f"The member at {address} lets this node into its mesh.")
    if code:
        question = f"Did somebody there tell you its code, and is it {code}?"
    else:
        render.note(
            f"It says that this node is a member already. Its fingerprint: {render.safe(event.get('fingerprint'))}"
        )
        question = "Is that the node you mean?"
    right = render.confirm(question, yes=False)
    body = {"fingerprint": event.get("fingerprint"), "right": right}
    client.call("POST", route("mesh", "join", "confirm"), body)


def _ask() -> str:
    """Read the invite from the terminal or a pipe, without white space. Raises MeshctlError (usage) without one."""
    if sys.stdin.isatty():
        print("Invite: ", end="", file=sys.stderr, flush=True)
        text = _pasted()
    else:
        text = os.read(0, INVITE_LIMIT)
        while len(text) < INVITE_LIMIT and (more := os.read(0, INVITE_LIMIT)):
            text += more
    invite = "".join(text.decode(errors="replace").split())
    if not invite:
        raise usage(
            "cannot join without an invite",
            "",
            "meshctl invite   on a node of the mesh, then here: meshctl join",
        )
    return invite


def _pasted() -> bytes:
    """The typed line, and the lines right after it: mail programs break long lines."""
    text = os.read(0, INVITE_LIMIT)
    while text.strip() and select.select([0], [], [], PASTE_PAUSE_S)[0]:
        more = os.read(0, INVITE_LIMIT)
        if not more:
            break
        text += more
    return text
