"""meshctl rm: DELETE /v1/pins/{ref}."""

from __future__ import annotations

from meshctl import hints, refs, render
from meshctl.arguments import Arguments, Options
from meshctl.client import LONG_ANSWER_TIMEOUT_S, Client, Document, route
from meshctl.errors import DEGRADED, DONE, MeshctlError, interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Outcome = dict[str, Any]


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl rm`."""
    parser.description = (
        "Stop keeping something. Each node holds it in its trash for a while, from where `meshctl restore` brings\n"
        "it back. With --now the nodes let go at once, which only the owner can ask for; it cannot be undone,\n"
        "and wants --force where no other entry has the same content.\n"
        "Exits 6 if with --now some node could not be asked, or refused."
    )
    parser.epilog = "examples:\n  meshctl rm minutes-1974.pdf\n  meshctl rm --now --force minutes-1974.pdf@2"
    parser.add_argument("refs", metavar="REF", nargs="+", help="a name, an older one (name@2), or a CID")
    parser.add_argument(
        "--now", action="store_true", help="free the space on every node now; cannot be undone"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if it cannot be restored then: the last copies go, or no node that holds it can be reached",
    )


def run(args: Options, client: Client) -> int:
    """Remove each in turn, and go on after a failure. The exit code is that of the first failure."""
    code = DONE
    for ref in args.refs:
        try:
            result = _remove(ref, args, client)
        except MeshctlError as failure:
            result = render.tell(failure, args.json)
        except KeyboardInterrupt:
            raise interrupted(
                f"cannot tell whether {render.safe(ref)} is removed", "interrupted", hints.command("ls", ref)
            ) from None
        code = code or result
    return code


def _remove(ref: str, args: Options, client: Client) -> int:
    target = route("pins", refs.whole(ref, "remove"), query={"now": int(args.now), "force": int(args.force)})
    removed = client.call("DELETE", target, timeout_s=LONG_ANSWER_TIMEOUT_S)
    outcomes: list[Outcome] = removed.get("nodes") or []
    if args.json:
        render.document(removed)
    elif args.now:
        _say_released(ref, outcomes)
    else:
        _say_trashed(ref, removed, outcomes)
    return DEGRADED if args.now and _not_in(outcomes, "released") else DONE


def _say_trashed(ref: str, removed: Document, outcomes: list[Outcome]) -> None:
    name = (removed.get("entry") or {}).get("name") or ref
    where = [str(outcome.get("node")) for outcome in outcomes if outcome.get("state") == "trashed"]
    until = removed.get("restore_until")
    held = f"; in the trash on {render.names(where)}" if where else ""
    back = f" until {render.when(float(until))}: {hints.command('restore', name)}" if until else ""
    render.say(f"removed {render.safe(name)}{held}{back}")
    for outcome in _not_in(outcomes, "trashed"):
        if outcome.get("state") == "unreachable":
            render.note(
                f"  {render.safe(outcome.get('node'))} could not be reached and will do it when it is back"
            )
        else:
            render.note(f"  {_told(outcome)}")


def _say_released(ref: str, outcomes: list[Outcome]) -> None:
    name = render.safe(ref)
    where = [str(outcome.get("node")) for outcome in outcomes if outcome.get("state") == "released"]
    render.say(
        f"removed {name}; " + (f"gone from {render.names(where)}" if where else "no node let go of it yet")
    )
    left = _not_in(outcomes, "released")
    if left:
        render.note(f"meshctl: cannot free {name} everywhere now:")
        for outcome in left:
            render.note(f"  {_told(outcome)}")
        render.note("  try: meshctl peers   (what stays in a node's trash goes when its window is over)")


def _not_in(outcomes: list[Outcome], state: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.get("state") != state]


def _told(outcome: Outcome) -> str:
    detail = f": {render.safe(outcome['detail'])}" if outcome.get("detail") else ""
    state = str(outcome.get("state"))
    said = {"unreachable": "could not be reached", "trashed": "keeps it in its trash", "refused": "refused"}
    return f"{render.safe(outcome.get('node'))} {said.get(state, render.safe(state))}{detail}"
