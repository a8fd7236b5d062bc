"""meshctl version: the version of this client, and the daemon's in its Meshd-Version header."""

from __future__ import annotations

from meshctl import __version__, render
from meshctl.arguments import Arguments, Options
from meshctl.client import ANSWER_TIMEOUT_S, Client
from meshctl.errors import DONE, MeshctlError


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl version`."""
    parser.description = "Print the versions of client and daemon. Exits 0 without a daemon, too."
    parser.epilog = "example:\n  meshctl version"


def run(args: Options, client: Client) -> int:
    """Ask whether the daemon is alive: its version is in every response's headers, a refusal's included.

    It does not ask for the status: that would count as having read the notices in it.
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
