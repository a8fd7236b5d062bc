"""JSON, read and written by CPython's C code alone: the package `json` imports `re` before anything else.

Where an interpreter has no such code, `json` serves as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    _FAST = False
else:
    _FAST = True

_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Reading:
    """The settings of json.JSONDecoder, by the names that the scanner looks for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own, which it empties


def decode(text: bytes) -> Any:
    """The value that the UTF-8 text is. Raises ValueError where it is none, or is nested too deeply."""
    shown = text.decode(errors="surrogatepass").strip(" \t\r\n")
    if not _FAST:
        return _decode_slowly(shown)
    try:
        value, end = make_scanner(_Reading)(shown, 0)  # type: ignore[arg-type] # typeshed has it wrong
    except (StopIteration, SystemError):
        # It names the mistake only where json.decoder is loaded; up to Python 3.12 it is a SystemError without that.
        return _decode_slowly(shown)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(shown):
        raise ValueError(f"more after the value, at {end}")
    return value


def encode(value: Any) -> str:
    """The value as one line of JSON, ASCII only. Raises TypeError for what has no form in JSON."""
    if not _FAST:
        return _encode_slowly(value)
    encoder = make_encoder({}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
    return "".join(encoder(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _decode_slowly(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _encode_slowly(value: Any) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))
