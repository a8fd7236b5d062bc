"""meshctl version: what this client is, and what the daemon says of itself in Meshd-Version."""

from __future__ import annotations

import argparse

from meshctl import __version__, render
from meshctl.client import ANSWER_TIMEOUT_S, Client
from meshctl.errors import DONE, MeshctlError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `meshctl version`."""
    parser.description = "Print the versions of client and daemon. Exits 0 without a daemon, too."
    parser.epilog = "example:\n  meshctl version"


def run(args: argparse.Namespace, client: Client) -> int:
    """Asks whether the daemon is alive; the version is in every answer's head, and in a refusal's too.

    Not for its status: having asked for that counts as having read the news in it.
    """
    problem = ""
    try:
        client.open("GET", "/healthz", timeout_s=ANSWER_TIMEOUT_S).close()
    except MeshctlError as error:
        problem = str(error)
    daemon = client.daemon_version
    if args.json:
        render.document({"meshctl": __version__, "meshd": daemon})
        return DONE
    render.say(f"meshctl {__version__}")
    render.say(f"meshd   {render.safe(daemon) if daemon else f'unknown: {render.safe(problem)}'}")
    return DONE
