"""Strict parsing of a query string: refuses what is mistyped, rather than ignoring it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from multidict import MultiMapping

from meshd.errors import Code, MeshError

SEE_API = "see /v1/openapi.json"


class Query:
    """The parameters of one request, each once at most. Each method raises MeshError BAD_REQUEST."""

    def __init__(self, values: Mapping[str, str] | None = None, see: str = SEE_API) -> None:
        """see: the hint for an invalid parameter."""
        self._values = values or {}
        self._see = see

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str) -> str:
        """The parameter's text; "" where it is missing."""
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """The parameter as a flag; False where it is missing."""
        value = self._values.get(name, "0")
        if value not in ("0", "1", "true", "false"):
            raise bad(name, f"{value[:40]!a} is neither 0 nor 1", self._see)
        return value in ("1", "true")

    def number(self, name: str, *, least: int = 0) -> int | None:
        """The parameter as a number; None where it is missing or empty."""
        value = self.text(name)
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) >= least):
            raise bad(name, f"{value[:40]!a} is no whole number from {least} up", self._see)
        return int(value)


def check_text(raw: str, see: str) -> None:
    """Check that a request target is UTF-8. raw: path and query as received. Raises MeshError BAD_REQUEST."""
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as exc:
        raise MeshError(
            Code.BAD_REQUEST, "cannot understand the request", "its address is not UTF-8", see
        ) from exc


def check_names(values: MultiMapping[str], known: tuple[str, ...], see: str) -> None:
    """Check parameter names. Raises MeshError BAD_REQUEST for one that the route does not have, or has twice."""
    for name in values:
        if name not in known:
            takes = f"this takes {', '.join(known)}" if known else "this takes none"
            raise bad(name, f"there is no such parameter: {takes}", see)
        if len(values.getall(name)) > 1:
            raise bad(name, "it is there twice", see)


def bad(name: str, why: str, see: str = SEE_API) -> MeshError:
    """The error for an invalid parameter."""
    return MeshError(Code.BAD_REQUEST, f"cannot understand {name[:40]!a} of the request", why, see)
