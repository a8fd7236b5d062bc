"""meshctl approve: POST /v1/requests/{ref}/authorize, then POST /v1/requests/{ref}/approve."""

from __future__ import annotations

import sys

from meshctl import render, step_stream
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import DONE, MeshctlError, interrupted, usage


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl approve`."""
    parser.description = (
        "Let a node in that asks: authorize it on the mesh's ZeroTier network, wait until it asks to join the mesh,\n"
        "show the code, and admit it once you say that the other machine shows the same code."
    )
    parser.epilog = (
        "examples:\n  meshctl approve a1b2c3d4e5\n  meshctl approve 3fa91c --code '4821 0937 5562'"
    )
    parser.add_argument(
        "ref", metavar="ID", help="as meshctl requests shows it, or the node's name or ZeroTier address"
    )
    parser.add_argument(
        "--code", metavar="CODE", help="the code that the other machine shows; then nothing is asked"
    )


def run(args: Options, client: Client) -> int:
    """Authorize the node, show its code, ask the person, admit it."""
    try:
        done = step_stream.follow(
            client.stream("POST", route("requests", args.ref, "authorize")), as_json=False
        )
        if done.get("member"):
            return _again(str(done["member"]), args, done)
        request = done.get("request") or {}
        code = str(request.get("code") or "")
        typed = args.code
        if typed is None:
            _ask(request, code)
            typed = code
        ref = str(request.get("id") or args.ref)
        answer = client.call("POST", route("requests", ref, "approve"), {"code": typed})
    except KeyboardInterrupt:
        raise interrupted(
            f"cannot tell whether {render.safe(args.ref)} is let in", "interrupted", "meshctl requests"
        ) from None
    if args.json:
        render.document(answer)
    else:
        render.say(f"{render.safe(answer.get('name'))} is a member of the mesh now.")
        render.note("To see it: meshctl peers")
    return DONE


def _again(member: str, args: Options, done: dict[str, object]) -> int:
    if args.json:
        render.document(done)
    else:
        render.say(f"{render.safe(member)} is a member, and may be on the network now.")
    return DONE


def _ask(request: dict[str, object], code: str) -> None:
    name, address = render.safe(request.get("name")), render.safe(request.get("address"))
    render.note(f"{name} at {address} asks to join. Its screen must show this code:")
    render.note(f"    {render.safe(code)}")
    ref = render.safe(request.get("id"))
    if not sys.stdin.isatty():
        raise usage(
            f"cannot let {name} in",
            "there is no terminal on which to ask whether the codes are the same",
            f"meshctl approve {ref} --code CODE (as the other machine shows it)",
        )
    if not render.confirm("Does the other machine show the same code?", yes=False):
        raise MeshctlError(
            f"cannot let {name} in",
            "you did not say that the codes are the same; nobody was admitted",
            f"meshctl approve {ref} --code CODE (as the other machine shows it); or: meshctl requests --deny {ref}",
        )
