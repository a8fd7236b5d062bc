"""What stands behind the ? of a request: read strictly, so that nothing that was mistyped is passed over."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from aiohttp import web

from meshd.errors import Code, MeshError

SEE_API = "see /v1/openapi.json"


def check(request: web.Request, known: tuple[str, ...]) -> None:
    """Raises MeshError BAD_REQUEST for what is not UTF-8, for a parameter that the route does not have, or has twice."""
    try:
        unquote_to_bytes(request.rel_url.raw_path_qs).decode()
    except UnicodeDecodeError as exc:
        raise MeshError(
            Code.BAD_REQUEST, "cannot understand the request", "its address is not UTF-8", SEE_API
        ) from exc
    for name in request.query:
        if name not in known:
            takes = f"this takes {', '.join(known)}" if known else "this takes none"
            raise bad(name, f"there is no such parameter: {takes}")
        if len(request.query.getall(name)) > 1:
            raise bad(name, "it is there twice")


def flag(request: web.Request, name: str) -> bool:
    """Raises MeshError BAD_REQUEST."""
    value = request.query.get(name, "0")
    if value not in ("0", "1", "true", "false"):
        raise bad(name, f"{value[:40]!a} is neither 0 nor 1")
    return value in ("1", "true")


def number(request: web.Request, name: str, *, least: int = 0) -> int | None:
    """None where it is not there or empty. Raises MeshError BAD_REQUEST."""
    value = request.query.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) >= least):
        raise bad(name, f"{value[:40]!a} is no whole number from {least} up")
    return int(value)


def bad(name: str, why: str) -> MeshError:
    return MeshError(Code.BAD_REQUEST, f"cannot understand {name[:40]!a} of the request", why, SEE_API)
