"""Commands for hints, with the names in them quoted for a shell."""

from __future__ import annotations

from meshctl.render import safe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Verbs that only show something.
_PLAIN = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-"
)  # as shlex.quote

_LOOKING = frozenset({"doctor", "ls", "peers", "status", "trash", "version", "watch"})


def quoted(text: object) -> str:
    """Quote one word of a command where a shell would split it; in $'...' where it has what a terminal would obey."""
    word = str(text)
    if safe(word) == word:
        return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"
    return f"$'{''.join(_in_dollars(character) for character in word)}'"


def _in_dollars(character: str) -> str:
    if safe(character) != character:
        a_byte = "\udc80" <= character <= "\udcff"  # a byte that is not UTF-8, as Python carries it
        raw = character.encode(errors="surrogateescape" if a_byte else "surrogatepass")
        return "".join(f"\\x{byte:02x}" for byte in raw)
    return f"\\{character}" if character in "\\'" else character


def path(text: object) -> str:
    """Quote a path as one word that no program takes for an option."""
    word = quoted(text)
    return f"./{word}" if str(text).startswith("-") else word


def command(verb: str, name: object, options: str = "") -> str:
    """`meshctl get 'it is' -o OTHER`; for a name that begins with -, `meshctl get -o OTHER -- -weird`."""
    word = quoted(name)
    words = [options, "--", word] if str(name).startswith("-") else [word, options]
    return " ".join(["meshctl", verb, *filter(None, words)])


def of_condition(condition: dict[str, Any]) -> str:
    """The hint of a condition; "" where it is only news, and the hint only shows something."""
    hint = str(condition.get("hint") or "")
    program, _, verb = hint.partition(" ")
    if condition.get("severity") == "info" and program == "meshctl" and verb in _LOOKING:
        return ""
    return hint
