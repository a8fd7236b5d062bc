"""meshctl status: GET /v1/status."""

from __future__ import annotations

import time

from meshctl import render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client
from meshctl.commands.peers import peer_table
from meshctl.errors import DONE, MeshctlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Part = dict[str, Any]


_EXIT_WIDTH = 48
_ORDER = {"error": 0, "warning": 1, "info": 2}


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl status`."""
    parser.description = (
        "How this node and its mesh are: what runs, who is there, what is kept, and what is wrong with the command\n"
        "that helps. Exits 0 when it could be shown, whatever it shows; scripts look at `ready` and `conditions`."
    )
    parser.epilog = "examples:\n  meshctl status\n  meshctl status --json\n  meshctl status --check"
    parser.add_argument(
        "--check",
        action="store_true",
        help="one line for Nagios and the like; exits 0 where all is well, 1 for a warning, 2 where something is wrong or\n"
        "meshd does not run, 3 where it cannot be asked",
    )


def run(args: Options, client: Client) -> int:
    """Print the overview."""
    if args.check and not args.json:
        return _check(client)
    status = client.get(
        "status", query={"glance": "1" if args.check else None}
    )  # --check --json is for programs
    if args.json:
        render.document(status)
        return DONE
    _node(status)
    _services(status.get("services") or [])
    peers = status.get("peers") or []
    if peers:
        render.say(f"\n{peer_table(peers)}")
    _conditions(status.get("conditions") or [])
    return DONE


def _check(client: Client) -> int:
    from meshctl import nagios

    # A monitoring system shows standard output, and knows no code above 3: a failure is a verdict, too.
    try:
        status = client.get("status", query={"glance": "1"})
    except MeshctlError as failure:
        return nagios.tell_failure(failure)
    return nagios.tell(status)


def _node(status: Part) -> None:
    node: Part = status.get("node") or {}
    mesh: Part | None = status.get("mesh")
    state = "" if mesh is None else "ready; " if status.get("ready") else "not ready; "
    site = f", site {render.safe(node['site'])}" if node.get("site") else ""
    up = render.span(float(node.get("uptime_s") or 0))
    _fact(
        "node",
        f"{render.safe(node.get('name'))}{site}: {state}up {up}, version {render.safe(node.get('version'))}",
    )
    if mesh is None:
        _fact("mesh", f"none yet   ({_how_to_begin(status)})")
    else:
        members = render.count(int(mesh.get("members") or 0), "node")
        copies = mesh.get("replicas")
        by_default = (
            "a copy on every node" if copies == "all" else render.count(int(copies or 0), "copy", "copies")
        )
        _fact("mesh", f"{render.safe(mesh.get('name'))}: {members}, {by_default} by default")
    _overlay(status.get("overlay") or {})
    _storage(status.get("storage"), node.get("state"))
    secrets: Part | None = status.get("secrets")
    if secrets is not None:
        _fact("secrets", _at_rest(secrets))
    pins: Part | None = status.get("pins")
    if pins is not None:
        entries = render.count(int(pins.get("entries") or 0), "entry", "entries")
        kept = f"{entries}, {render.size(pins.get('size') or 0)}"
        _fact("kept", f"{kept}; trash: {pins.get('trash')}, {render.size(pins.get('trash_size') or 0)}")


def _how_to_begin(status: Part) -> str:
    overlay: Part = status.get("overlay") or {}
    trouble = any(str(c.get("code")).startswith("zerotier-") for c in status.get("conditions") or [])
    chosen = overlay.get("kind") == "zerotier" or str(overlay.get("interface") or "").startswith("zt")
    has_zerotier = bool(overlay.get("zerotier")) or chosen or trouble
    if not has_zerotier:
        return "meshctl init, or meshctl join"
    network = render.safe(overlay.get("network") or "ID")
    return f"meshctl join {network}, or meshctl init --network {network}"


def _at_rest(secrets: Part) -> str:
    """The state of the mesh's secrets at rest, as a phrase."""
    key = str(secrets.get("key") or "")
    match secrets.get("kept"):
        case "credentials" if secrets.get("by") == "environment":
            return "handed over in CREDENTIALS_DIRECTORY; in no file of meshd's"
        case "credentials":
            return "handed over by systemd; in no file of meshd's"
        case "encrypted" if secrets.get("encrypted"):
            return f"encrypted, by a key in this machine's TPM ({key})"
        case "encrypted" if key == "host":
            return "not encrypted: the key to them lies on a disk of this machine"
        case "encrypted":
            return "encrypted by a key that is not known, which does not count"
        case "files":
            return "in plain files that only meshd may read"
    return "kept in a way that this meshctl does not know"


def _overlay(overlay: Part) -> None:
    address = overlay.get("address")
    interface = f" on {render.safe(overlay['interface'])}" if overlay.get("interface") else ""
    where = f"{render.safe(address)}{interface}" if address else "no address"
    why = f": {render.safe(overlay['why'])}" if overlay.get("why") else ""
    _fact("overlay", f"{where} ({render.safe(overlay.get('kind'))}{why})")


def _storage(storage: Part | None, folder: object) -> None:
    if storage is None:
        _fact("storage", "its disk cannot be seen; takes nothing new")
        return
    text = f"{render.size(storage.get('free') or 0)} free of {render.size(storage.get('total') or 0)}"
    text += f", {render.size(storage.get('content') or 0)} of content"
    text += f", {render.size(storage.get('reserve') or 0)} kept free"
    if storage.get("offer"):
        text += f", at most {render.size(storage['offer'])} for others"
    if folder:
        text += f", in {render.safe(folder)}"
    _fact("storage", text if storage.get("accepts") else f"{text}; takes nothing new")


def _fact(label: str, text: str) -> None:
    render.say(f"{label:<8} {text}")


def _services(services: list[Part]) -> None:
    if not services:
        return
    rows = []
    for service in services:
        phase = str(service.get("phase"))
        if phase == "ready" and not service.get("healthy"):
            phase = "ready, not healthy"
        rows.append(
            (
                service.get("name"),
                phase,
                render.span(float(service.get("since_s") or 0)),
                service.get("restarts"),
                service.get("version") or "-",
                _last_exit(str(service.get("last_exit") or "-")),
            )
        )
    header = ("SERVICE", "STATE", "FOR", "RESTARTS", "VERSION", "LAST EXIT")
    render.say(f"\n{render.table(header, rows, right=(3,))}")


def _last_exit(text: str) -> str:
    """How a service ended, in a column's width. Its last lines are in the condition while it is down, and in the log."""
    short = text.partition("; its last lines")[0]
    return short if len(short) <= _EXIT_WIDTH else f"{short[: _EXIT_WIDTH - 1]}…"


def _conditions(conditions: list[Part]) -> None:
    if not conditions:
        render.say("\nNothing is wrong.")
        return
    from meshctl import hints, wrap

    ordered = sorted(
        conditions, key=lambda one: (_ORDER.get(str(one.get("severity")), 3), float(one.get("since") or 0))
    )
    for condition in ordered:
        render.say()
        wrap.tell(f"{condition.get('title')}{_since(condition)}", f"{condition.get('severity')}: ")
        if condition.get("cause"):
            wrap.tell(condition["cause"], "  ")
        if hint := hints.of_condition(condition):
            wrap.tell(hint, "  try: ")


def _since(condition: Part) -> str:
    """`, since 14:02 (3 min)`, with the date where it was not today; "" where unknown."""
    began = float(condition.get("since") or 0)
    if began <= 0:
        return ""
    now, at = time.time(), render.when(began)
    day, _, clock = at.partition(" ")
    shown = clock if day == render.when(now)[:10] else at
    return f", since {shown} ({render.span(now - began)})"
