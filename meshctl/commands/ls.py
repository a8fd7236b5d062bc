"""meshctl ls: GET /v1/pins, GET /v1/pins/{ref} and GET /v1/pins/{ref}/files."""

from __future__ import annotations

from meshctl import hints, refs, render
from meshctl.arguments import Arguments, BadValueError, Options
from meshctl.client import Client, Document, Query
from meshctl.errors import DONE, usage
from meshctl.numbers import whole
from meshctl.pin_progress import no_copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Entry = dict[str, Any]


PAGE = 200


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl ls`."""
    parser.description = (
        "List what the mesh keeps; with REF what that entry is, or what is inside it.\n"
        "COPIES are those that exist of those that were asked for. NAME@2 is what NAME was before."
    )
    parser.epilog = (
        "examples:\n  meshctl ls\n  meshctl ls --name minutes --owner attic\n  meshctl ls photos/1974"
    )
    parser.add_argument(
        "ref",
        metavar="REF[/PATH]",
        nargs="?",
        help="a name, an older one (name@2) or a CID; and a path inside it",
    )
    parser.add_argument("--name", metavar="TEXT", help="only entries with TEXT in their name")
    parser.add_argument("--owner", metavar="NODE", help="only entries that this node brought")
    much = parser.only_one_of()
    much.add_argument("--limit", type=_positive, metavar="N", help="at most N entries")
    much.add_argument("--all", action="store_true", help="every entry (the default)")


def run(args: Options, client: Client) -> int:
    """List the mesh, or one entry."""
    if args.ref is None:
        return _list(args, client)
    if args.name is not None or args.owner is not None or args.limit is not None:
        raise usage("cannot filter inside one entry", "", hints.command("ls", args.ref))
    ref, path = refs.split(args.ref, "list")
    if "/" not in args.ref:
        entry = client.get("pins", ref)
        if not entry.get("directory"):
            return _show_entry(entry, args.json)
        if not args.json:
            _note_copies(entry)
    listing = client.get("pins", ref, "files", query={"path": path})
    if args.json:
        render.document(listing)
    else:
        _show_items(listing)
    return DONE


def _list(args: Options, client: Client) -> int:
    entries, last = _pages(args, client)
    if args.json:
        render.document({**last, "entries": entries})
        return DONE
    if not entries:
        filtered = args.name is not None or args.owner is not None
        render.note(
            "Nothing is kept that fits."
            if filtered
            else "Nothing is kept yet. To keep a file: meshctl pin PATH"
        )
        return DONE
    rows = [
        (
            shown_name(entry),
            render.size(entry.get("size") or 0),
            entry.get("files") if entry.get("directory") else "",
            _copies(entry),
            entry.get("owner"),
            render.when(float(entry.get("time") or 0)),
        )
        for entry in entries
    ]
    render.say(render.table(("NAME", "SIZE", "FILES", "COPIES", "OWNER", "WHEN"), rows, right=(1, 2)))
    _note_away(entries)
    total = int(last.get("total") or 0)
    if last.get("next") and total > len(entries):
        render.note(f"{len(entries)} of {total} entries. To see more: a larger --limit")
    return DONE


def _pages(args: Options, client: Client) -> tuple[list[Entry], Document]:
    """All entries up to --limit, and the last page, whose `next` says whether there are more."""
    entries: list[Entry] = []
    after: str | None = None
    while True:
        page = PAGE if args.limit is None else min(PAGE, args.limit - len(entries))
        query: Query = {"name": args.name, "owner": args.owner, "limit": page, "after": after, "copies": 1}
        answer = client.get("pins", query=query)
        got = answer.get("entries") or []
        entries += got
        after = answer.get("next")
        if not after or not got or (args.limit is not None and len(entries) >= args.limit):
            return entries, answer


def shown_name(entry: Entry) -> str:
    """minutes.pdf, photos/ for a directory, minutes.pdf@2 for the one before the newest."""
    version = int(entry.get("version") or 1)
    older = f"@{version}" if version > 1 else ""
    return f"{entry.get('name')}{older}{'/' if entry.get('directory') else ''}"


def _copies(entry: Entry) -> str:
    held = entry.get("held")
    return f"{'?' if held is None else held}/{entry.get('wanted')}"


def _note_away(entries: list[Entry]) -> None:
    """Print, below the table, which nodes are away, where an entry may seem short of copies for that reason."""
    short = [entry for entry in entries if entry.get("held") != entry.get("wanted")]
    copies = [copy for entry in short for copy in entry.get("copies") or []]
    away = sorted({str(copy.get("node")) for copy in copies if copy.get("state") == "unknown"})
    if len(away) == 1:
        render.note(f"{render.safe(away[0])} is away: its copies are not counted")
    elif away:
        render.note(f"{render.names(away)} are away: their copies are not counted")


def _show_entry(entry: Entry, as_json: bool) -> int:
    if as_json:
        render.document(entry)
        return DONE
    facts: list[tuple[str, object]] = [
        ("name", shown_name(entry)),
        ("size", f"{render.size(entry.get('size') or 0)} ({entry.get('size')} bytes)"),
        ("owner", f"{entry.get('owner')}{' (this node)' if entry.get('mine') else ''}"),
        ("when", render.when(float(entry.get("time") or 0))),
        ("copies", _copies(entry)),
        ("entry", entry.get("cid")),
        ("root", entry.get("root")),
    ]
    for label, fact in facts:
        render.say(f"{label:<7} {render.safe(fact)}")
    copies = entry.get("copies") or []
    if copies:
        rows = [(copy.get("node"), copy.get("state"), copy.get("detail") or "") for copy in copies]
        render.say(f"\n{render.table(('NODE', 'COPY', ''), rows)}")
    return DONE


def _note_copies(entry: Entry) -> None:
    """Print, beside a directory's listing, which nodes hold it, and why others do not."""
    copies = entry.get("copies") or []
    held = [str(copy.get("node")) for copy in copies if copy.get("state") == "held"]
    size = render.size(entry.get("size") or 0)
    files = render.count(int(entry.get("files") or 0), "file")
    where = f": {render.names(held)}" if held else ""
    render.note(f"{render.safe(shown_name(entry))}  {size} in {files}, copies {_copies(entry)}{where}")
    for copy in copies:
        if copy.get("state") != "held":
            render.note(f"  {no_copy(copy)}")


def _show_items(listing: Document) -> None:
    items = listing.get("items") or []
    if not items:
        render.note("It is empty.")
        return
    rows = [
        (
            "" if item.get("directory") or item.get("target") else render.size(item.get("size") or 0),
            _item_name(item),
        )
        for item in items
    ]
    render.say(render.table(("SIZE", "NAME"), rows, right=(0,)))


def _item_name(item: Document) -> str:
    if item.get("target"):
        return f"{item.get('name')} -> {item['target']}"
    return f"{item.get('name')}{'/' if item.get('directory') else ''}"


def _positive(text: str) -> int:
    number = whole(text)
    if not number:
        raise BadValueError(f"{text!r} is no number from 1 up")
    return number
