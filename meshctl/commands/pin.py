"""meshctl pin: POST /v1/pins for what is here, PUT /v1/pins/{cid} for what the mesh has already."""

from __future__ import annotations

from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, Document, route
from meshctl.errors import usage
from meshctl.numbers import whole
from meshctl.pin_progress import Follower
from meshctl.pin_upload import PinUpload, left
from meshctl.walk import STDIN, look, standard_input


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl pin`."""
    parser.description = (
        "Keep files and directories in the mesh. Returns when every copy that was asked for exists, and says where.\n"
        "Each PATH becomes one entry. A symlink given as PATH is followed; symlinks inside a directory stay symlinks.\n"
        "All paths are looked at before anything is sent. Four are under way at a time, and told of in their order. If\n"
        "one fails, those that were begun are finished, and the rest is not begun.\n"
        "`-` is standard input and needs --name. Exits 6 if it is kept, but on fewer nodes than asked."
    )
    parser.epilog = (
        "examples:\n"
        "  meshctl pin minutes-1974.pdf\n"
        "  meshctl pin photos/ --replicas all\n"
        "  tar c letters | meshctl pin - --name letters.tar"
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="a file, a directory, or - for standard input"
    )
    parser.add_argument("--name", help="what to call it (default: the last part of PATH)")
    parser.add_argument("--replicas", type=_replicas, metavar="N|all", help="how many nodes must hold it")
    parser.add_argument("--detach", action="store_true", help="return as soon as the mesh goes on by itself")
    parser.add_argument("--cid", metavar="CID", help="keep content that the mesh has already; needs --name")


def run(args: Options, client: Client) -> int:
    """Pin each path. The exit code is that of the first failure; else 6 where one has fewer copies than asked."""
    if args.cid is not None:
        return _pin_cid(args, client)
    _check_usage(args)
    trees = [standard_input(args.name) if path == STDIN else look(path, args.name) for path in args.paths]
    pins = [PinUpload(path, tree, args, client) for path, tree in zip(args.paths, trees, strict=True)]
    if len(pins) > 1:
        from meshctl.pin_several import pin_several

        return pin_several(pins, args.json)
    (pin,) = pins
    pin.note_symlinks()
    try:
        events = pin.upload.events()
        try:
            return pin.follower.follow(events)
        finally:
            events.close()  # at once, however it ends: the daemon must notice
    except KeyboardInterrupt:
        raise pin.left() from None


def _check_usage(args: Options) -> None:
    if not args.paths:
        raise usage("cannot pin nothing", "no path was given", "meshctl pin PATH")
    if args.name is not None and len(args.paths) > 1:
        raise usage(
            "cannot give one name to several paths", "", "meshctl pin PATH --name NAME, once for each"
        )
    if args.paths.count(STDIN) > 1:
        raise usage("cannot read standard input twice", "", "meshctl pin - --name NAME")


def _pin_cid(args: Options, client: Client) -> int:
    if args.paths:
        raise usage("cannot pin a path and a CID at once", "", "meshctl pin --cid CID --name NAME")
    if args.name is None:
        raise usage("cannot pin a CID without a name", "", "meshctl pin --cid CID --name NAME")
    body: Document = {"name": args.name, "detach": args.detach}
    if args.replicas is not None:
        body["replicas"] = args.replicas
    follower = Follower(args.name, None, done="pinned", detach=args.detach, as_json=args.json)
    try:
        return follower.follow(client.stream("PUT", route("pins", args.cid), body))
    except KeyboardInterrupt:
        raise left(follower, client, sent=True) from None


def _replicas(text: str) -> int | str:
    if text == "all":
        return text
    number = whole(text)
    if number is None or not 1 <= number <= 1000:
        raise BadValueError(f"{text!r} is neither a number from 1 to 1000 nor all")
    return number
