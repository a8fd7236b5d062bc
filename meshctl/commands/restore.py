"""meshctl restore: POST /v1/trash/{ref}/restore."""

from __future__ import annotations

from meshctl import hints, refs, render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client, route
from meshctl.errors import MeshctlError, interrupted
from meshctl.pin_progress import Follower


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl restore`."""
    parser.description = "Bring something back from the trash. Returns when every copy exists again."
    parser.epilog = "example:\n  meshctl trash\n  meshctl restore minutes-1974.pdf"
    parser.add_argument("ref", metavar="REF", help="a name as `meshctl trash` shows it, or a CID")


def run(args: Options, client: Client) -> int:
    """Restore one entry, and show its copies as they come."""
    ref = refs.whole(args.ref, "restore")
    follower = Follower(ref, None, done="restored", detach=False, as_json=args.json)
    try:
        return follower.follow(client.stream("POST", route("trash", ref, "restore")))
    except MeshctlError as failure:
        if failure.code == "not-found" and failure.hint.startswith("meshctl ls"):
            failure.advise("meshctl trash")  # rather than the list of entries
        raise
    except KeyboardInterrupt:
        name = render.safe(follower.name)
        look = hints.command("ls", follower.name)
        if follower.kept:
            detail = f"interrupted; {name} is back and its copies are made in the background"
            raise interrupted("cannot wait for every copy", detail, look) from None
        raise interrupted(f"cannot tell whether {name} is back", "interrupted", look) from None
