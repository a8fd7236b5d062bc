"""meshctl pin: POST /v1/pins for what is here, PUT /v1/pins/{cid} for what the mesh has already."""

from __future__ import annotations

from meshctl import hints, render
from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, Document, Query, route
from meshctl.errors import DONE, MeshctlError, interrupted, usage
from meshctl.numbers import whole
from meshctl.pin_progress import Follower
from meshctl.upload import Upload
from meshctl.walk import STDIN, Tree, look, standard_input


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl pin`."""
    parser.description = (
        "Keep files and directories in the mesh. Returns when every copy that was asked for exists, and says where.\n"
        "Each PATH becomes one entry. A symlink given as PATH is followed; symlinks inside a directory stay symlinks.\n"
        "All paths are looked at before anything is sent. If one fails later, those before it are kept.\n"
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
    """Pin each path in turn. The exit code is that of the first one that was not wholly done."""
    if args.cid is not None:
        return _pin_cid(args, client)
    _check_usage(args)
    trees = [standard_input(args.name) if path == STDIN else look(path, args.name) for path in args.paths]
    code = DONE
    for number, tree in enumerate(trees):
        try:
            result = _pin_tree(tree, args, client)
        except MeshctlError as failure:
            _say_not_begun(failure, trees[number + 1 :])
            raise
        code = code or result
    return code


def _say_not_begun(failure: MeshctlError, trees: list[Tree]) -> None:
    """Add to a failure which paths after it were not begun. Those before it are pinned, as each line said."""
    if trees:
        names = render.names([tree.name for tree in trees], limit=5)
        failure.explain(f"{failure.detail or 'it failed'}; not begun: {names}")


def _check_usage(args: Options) -> None:
    if not args.paths:
        raise usage("cannot pin nothing", "no path was given", "meshctl pin PATH")
    if args.name is not None and len(args.paths) > 1:
        raise usage(
            "cannot give one name to several paths", "", "meshctl pin PATH --name NAME, once for each"
        )
    if args.paths.count(STDIN) > 1:
        raise usage("cannot read standard input twice", "", "meshctl pin - --name NAME")


def _pin_tree(tree: Tree, args: Options, client: Client) -> int:
    query: Query = {
        "name": tree.name,
        "replicas": args.replicas,
        "files": tree.files,
        "bytes": tree.size,
        "directory": int(tree.directory),
        "detach": int(args.detach),
    }
    if tree.followed:
        render.note(
            f"note: {render.safe(tree.name)} is a symlink; what it leads to is pinned: {render.safe(tree.followed)}"
        )
    if tree.symlinks:
        links = render.count(tree.symlinks, "symlink is", "symlinks are")
        render.note(f"note: {links} kept in {render.safe(tree.name)} as such, not followed")
    upload = Upload(client, tree, query)
    follower = Follower(tree.name, tree.size, done="pinned", detach=args.detach, as_json=args.json)
    try:
        events = upload.events()
        try:
            return follower.follow(events)
        finally:
            events.close()  # at once, however it ends: the daemon must notice
    except KeyboardInterrupt:
        raise _left(follower, client, sent=upload.whole) from None


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
        raise _left(follower, client, sent=True) from None


def _left(follower: Follower, client: Client, *, sent: bool) -> MeshctlError:
    """The error for Ctrl-C, with what is left behind. sent: the daemon had all of it, and goes on."""
    name = render.safe(follower.name)
    look = hints.command("ls", follower.name)
    if follower.kept:
        detail = f"interrupted; {name} is kept and its copies are made in the background"
        return interrupted("cannot wait for every copy", detail, look)
    if sent:
        follow = f"meshctl operations {render.safe(client.operation)}" if client.operation else look
        return interrupted(f"cannot tell whether {name} is pinned", "interrupted", follow)
    return interrupted(f"cannot pin {name}", "interrupted; nothing is pinned", "the same again")


def _replicas(text: str) -> int | str:
    if text == "all":
        return text
    number = whole(text)
    if number is None or not 1 <= number <= 1000:
        raise BadValueError(f"{text!r} is neither a number from 1 to 1000 nor all")
    return number
