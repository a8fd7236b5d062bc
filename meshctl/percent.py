"""Percent-encoding (RFC 3986). urllib.parse does the same, and imports `re` and six more modules for the rest of it."""

from __future__ import annotations

_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str) -> str:
    """Every byte but the unreserved ones as %XX. Raises UnicodeEncodeError for a surrogate that is no byte."""
    raw = text.encode(errors="surrogateescape")
    return "".join(chr(byte) if byte in _KEPT else f"%{byte:02X}" for byte in raw)


def unquote(text: str) -> str:
    """Undo `quote`; a % before anything but two hex digits stays as it is. Bytes that are no UTF-8 become surrogates."""
    first, *rest = text.split("%")
    found = [first.encode(errors="surrogateescape")]
    for part in rest:
        digits = part[:2]
        if len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            found += [bytes((int(digits, 16),)), part[2:].encode(errors="surrogateescape")]
        else:
            found += [b"%", part.encode(errors="surrogateescape")]
    return b"".join(found).decode(errors="surrogateescape")
