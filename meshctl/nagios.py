"""Nagios plugin output: one line and an exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""

from __future__ import annotations

from meshctl import render
from meshctl.errors import UNREACHABLE, MeshctlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
_WORDS = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}
_LEVELS = {"error": CRITICAL, "warning": WARNING}


def tell(status: dict[str, Any]) -> int:
    """Print the verdict on a status document, the worst condition first, and performance data; its exit code."""
    conditions: list[dict[str, Any]] = status.get("conditions") or []
    code = max((_LEVELS.get(str(c.get("severity")), OK) for c in conditions), default=OK)
    if status.get("mesh") is None:
        code = max(code, WARNING)  # a machine that is monitored is meant to be in one
    elif not status.get("ready"):
        code = CRITICAL
    told = [str(c.get("title")) for c in conditions if _LEVELS.get(str(c.get("severity")), OK) > OK]
    text = "; ".join(told) or _well(status, code)
    return _say(code, text, f" | {_numbers(status)}")


def tell_failure(failure: MeshctlError) -> int:
    """Print why there is no status document. A daemon that does not answer is CRITICAL, as any other service."""
    text = f"{failure.title}: {failure.detail}" if failure.detail else failure.title
    if failure.hint:
        text += f"; try: {failure.hint.splitlines()[0]}"
    return _say(CRITICAL if failure.exit_code == UNREACHABLE else UNKNOWN, text)


def _say(code: int, text: str, numbers: str = "") -> int:
    # A bar ends the text and begins the performance data, so the text must have none.
    render.say(f"MESHD {_WORDS[code]} - {render.safe(text).replace('|', '/')}{numbers}")
    return code


def _well(status: dict[str, Any], code: int) -> str:
    if status.get("mesh") is None:
        return "this node is in no mesh"
    return "ready" if code == OK else "not ready"


def _numbers(status: dict[str, Any]) -> str:
    """Performance data: name=value pairs of the plugins' guidelines; B is bytes."""
    storage: dict[str, Any] = status.get("storage") or {}
    pins: dict[str, Any] = status.get("pins") or {}
    peers = [peer for peer in status.get("peers") or [] if not peer.get("this_node")]
    numbers = {
        "free": f"{storage.get('free') or 0}B",
        "content": f"{storage.get('content') or 0}B",
        "entries": pins.get("entries") or 0,
        "short": pins.get("short") or 0,
        "peers": len(peers),
        "peers_away": sum(not peer.get("reachable") for peer in peers),
    }
    return " ".join(f"{name}={value}" for name, value in numbers.items())
