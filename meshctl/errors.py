"""The failures of a verb: the exit codes, and the one exception that reaches a person."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
NOT_PERMITTED = 5
DEGRADED = 6
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

# Codes of the daemon's closed list (and three of our own) that have an exit code of their own.
_EXIT_CODES = {
    "usage": USAGE,
    "daemon-unreachable": UNREACHABLE,
    "not-found": NOT_FOUND,
    "denied": NOT_PERMITTED,
    "not-owner": NOT_PERMITTED,
    "forgotten": NOT_PERMITTED,
    "interrupted": INTERRUPTED,
}


class MeshctlError(Exception):
    """An error for a person: what cannot be done, why, and what to type.

    title: begins with "cannot". detail: the cause, may be empty. hint: what to type, may be empty, or have several
    lines. code: of the daemon's list, or one of the client's own: usage, daemon-unreachable, interrupted, failed.
    """

    def __init__(self, title: str, detail: str = "", hint: str = "", *, code: str = "failed") -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.title = title
        self.detail = detail
        self.hint = hint
        self.code = code
        self.document: dict[str, Any] = {
            "type": f"urn:meshctl:problem:{code}",
            "title": title,
            "detail": detail,
            "code": code,
            "hint": hint,
        }

    @property
    def exit_code(self) -> int:
        """The exit code of meshctl; a code without one of its own is a plain failure."""
        return _EXIT_CODES.get(self.code, FAILED)

    def advise(self, hint: str) -> None:
        """Replace the daemon's hint, where the client knows better."""
        self.hint = hint
        self.document = self.document | {"hint": hint}

    def explain(self, detail: str) -> None:
        """Replace the daemon's detail, where the client knows more."""
        self.detail = detail
        self.document = self.document | {"detail": detail}

    @classmethod
    def from_problem(cls, document: dict[str, Any]) -> MeshctlError:
        """The failure in an RFC 9457 document of the daemon, which is kept whole for --json."""
        failure = cls(
            str(document.get("title") or "cannot do that"),
            str(document.get("detail") or ""),
            str(document.get("hint") or ""),
            code=str(document.get("code") or "failed"),
        )
        failure.document = document
        return failure


def usage(title: str, detail: str = "", hint: str = "") -> MeshctlError:
    """The error for a wrong command line: exit code 2."""
    return MeshctlError(title, detail, hint, code="usage")


def interrupted(title: str, detail: str = "", hint: str = "") -> MeshctlError:
    """The error for Ctrl-C, with what it left behind: exit code 130."""
    return MeshctlError(title, detail, hint, code="interrupted")
