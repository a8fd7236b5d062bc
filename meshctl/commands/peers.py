"""meshctl peers: GET /v1/peers, PUT /v1/peers/{name}/address."""

from __future__ import annotations

from meshctl import render
from meshctl.arguments import Arguments, Options
from meshctl.client import LONG_ANSWER_TIMEOUT_S, Client, route
from meshctl.errors import DONE, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl peers`."""
    parser.description = (
        "List the nodes of the mesh: where they are and when they were last heard of.\n"
        "With `set NODE ADDRESS`: call that node at another address from now on, because it has moved. It must answer\n"
        "there; nodes that reach each other tell each other by themselves where they are."
    )
    parser.epilog = (
        "examples:\n"
        "  meshctl peers\n"
        "  meshctl peers set attic 10.144.0.23\n"
        "  meshctl peers set attic attic.lan:4010"
    )
    parser.add_argument("what", metavar="set", nargs="?", choices=("set",), help="set the address of a node")
    parser.add_argument("node", metavar="NODE", nargs="?", help="its name, as `meshctl peers` shows it")
    parser.add_argument(
        "address", metavar="ADDRESS", nargs="?", help="an address or a host name, perhaps with :PORT"
    )


def run(args: Options, client: Client) -> int:
    """Print the table, or set an address."""
    if args.what is not None:
        return _set(args, client)
    answer = client.get("peers")
    if args.json:
        render.document(answer)
        return DONE
    peers = answer.get("peers") or []
    if not peers:
        render.note("No nodes: this one is in no mesh. To start or join one: meshctl init, meshctl join")
        return DONE
    render.say(peer_table(peers))
    for peer in peers:
        if peer.get("problem"):
            render.note(_problem(peer))
    return DONE


def _set(args: Options, client: Client) -> int:
    if args.node is None or args.address is None:
        missing = "which node, and where it is" if args.node is None else f"where {render.safe(args.node)} is"
        raise usage(
            "cannot set an address", f"it was not said {missing}", "meshctl peers set attic 10.144.0.23"
        )
    target = route("peers", args.node, "address")
    answer = client.call("PUT", target, {"address": args.address}, timeout_s=LONG_ANSWER_TIMEOUT_S)
    if args.json:
        render.document(answer)
        return DONE
    name, address = render.safe(answer.get("name") or args.node), render.safe(answer.get("address"))
    render.say(f"{name} answers at {address}, and is called there from now on.")
    render.note("The other nodes hear of it from here. To see who is reached: meshctl peers")
    return DONE


def peer_table(peers: list[dict[str, Any]]) -> str:
    """The table of the nodes, this one first. Part of `meshctl status`, too."""
    ordered = sorted(peers, key=lambda peer: (not peer.get("this_node"), str(peer.get("name"))))
    rows = [
        (
            peer.get("name"),
            peer.get("address") or "-",
            _seen(peer),
            render.size(peer.get("free") or 0) if peer.get("this_node") or peer.get("last_seen") else "-",
            peer.get("site") or "-",
            peer.get("version") or "-",
        )
        for peer in ordered
    ]
    header = ["NODE", "ADDRESS", "SEEN", "FREE", "SITE", "VERSION"]
    return render.table(header, rows, right=(3,))


def _seen(peer: dict[str, Any]) -> str:
    state = _state(peer)
    if peer.get("this_node"):
        return f"this node{state if peer.get('address') else ', no address'}"
    if not peer.get("reachable"):
        return f"not reached, {_last(peer)}"
    rtt_s, latency_ms, path = peer.get("rtt_s"), peer.get("latency_ms"), peer.get("path")
    if path:  # ZeroTier's latency between the machines, without meshd's own time
        took = f", {render.safe(path)}" + (f", {latency_ms} ms" if isinstance(latency_ms, int) else "")
    else:
        took = f", {rtt_s * 1000:.0f} ms" if isinstance(rtt_s, int | float) else ""
    return f"reachable{took}{state}"


def _state(peer: dict[str, Any]) -> str:
    if not peer.get("ready", True):
        return ", starting"
    if peer.get("leaving"):
        return ", leaving"
    return "" if peer.get("accepts") else ", takes nothing new"


def _problem(peer: dict[str, Any]) -> str:
    name, problem = str(peer.get("name")), str(peer["problem"])
    return render.safe(problem if name in problem else f"{name}: {problem}")


def _last(peer: dict[str, Any]) -> str:
    last = float(peer.get("last_seen") or 0)
    return f"last seen {render.ago(last)}" if last > 0 else "never seen"
