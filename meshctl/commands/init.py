"""meshctl init: POST /v1/mesh."""

from __future__ import annotations

import argparse

from meshctl import render, steps
from meshctl.client import Client, route
from meshctl.errors import DONE, interrupted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `meshctl init`."""
    parser.description = (
        "Start a mesh with this node as its first. Where it has one already, that is said; exits 0."
    )
    parser.epilog = "example:\n  meshctl init --name archive"
    parser.add_argument("--name", default="mesh", help="what to call the mesh (default: %(default)s)")


def run(args: argparse.Namespace, client: Client) -> int:
    """Makes the mesh, or says that this node is in it already."""
    try:
        done = steps.follow(client.stream("POST", route("mesh"), {"name": args.name}), args.json)
    except KeyboardInterrupt:
        raise interrupted("cannot tell whether the mesh was made", "interrupted", "meshctl status") from None
    if args.json:
        return DONE
    mesh = render.safe((done.get("mesh") or {}).get("name"))
    node = render.safe(done.get("node"))
    if done.get("created"):
        render.say(f"This node, {node}, is the first of the mesh {mesh}.")
    else:
        render.say(f"This node, {node}, is in the mesh {mesh} already; nothing was changed.")
    render.note("To admit the next node: meshctl invite")
    return DONE
