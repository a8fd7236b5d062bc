"""The errors that reach a person: one closed list of codes, and one class.

A message begins with what cannot be done ("cannot ..."); its hint ends with what to type.
"""

from __future__ import annotations

import shlex
from enum import StrEnum

_LINE_MOST = 300  # characters


def quoted(reference: str) -> str:
    """Quote a name, path or reference for a shell, as the last word of a command in a hint.

    With `--` before it where it looks like an option. So put options first: f"meshctl get -o OTHER {quoted(r)}".
    """
    word = shlex.quote(reference)
    return f"-- {word}" if reference.startswith("-") else word


class Code(StrEnum):
    """Every way a request or a start can fail. Clients may rely on these; the prose may change."""

    BAD_REQUEST = "bad-request"
    BAD_CONFIG = "bad-config"
    BAD_NAME = "bad-name"
    BAD_INVITE = "bad-invite"
    INVITE_EXPIRED = "invite-expired"
    INVITE_USED = "invite-used"
    UPLOAD_CUT_OFF = "upload-cut-off"
    UPLOAD_MISMATCH = "upload-mismatch"
    DENIED = "denied"
    NOT_OWNER = "not-owner"
    NOT_FOUND = "not-found"
    NO_MESH = "no-mesh"
    IN_OTHER_MESH = "in-other-mesh"
    NAME_TAKEN = "name-taken"
    LAST_COPY = "last-copy"
    FEWER_COPIES = "fewer-copies"
    FORGOTTEN = "forgotten"
    BUSY = "busy"
    DISK_FLOOR = "disk-floor"
    NOT_READY = "not-ready"
    NO_OVERLAY = "no-overlay"
    PEER_UNREACHABLE = "peer-unreachable"
    BAD_STATE = "bad-state"
    ENGINE_MISSING = "engine-missing"
    ENGINE_FAILED = "engine-failed"
    OPERATION_INTERRUPTED = "operation-interrupted"
    INTERNAL = "internal"


_STATUS: dict[Code, int] = {
    Code.DENIED: 403,
    Code.NOT_OWNER: 403,
    Code.FORGOTTEN: 403,
    Code.NOT_FOUND: 404,
    Code.NO_MESH: 409,
    Code.IN_OTHER_MESH: 409,
    Code.NAME_TAKEN: 409,
    Code.LAST_COPY: 409,
    Code.FEWER_COPIES: 409,
    Code.BUSY: 409,
    Code.INVITE_EXPIRED: 410,
    Code.INVITE_USED: 410,
    Code.DISK_FLOOR: 507,
    Code.NOT_READY: 503,
    Code.OPERATION_INTERRUPTED: 503,
    Code.NO_OVERLAY: 503,
    Code.PEER_UNREACHABLE: 502,
    Code.ENGINE_MISSING: 503,
    Code.ENGINE_FAILED: 502,
    Code.BAD_STATE: 500,
    Code.INTERNAL: 500,
}


class MeshError(Exception):
    """An error for a person: what cannot be done, why, and what to type.

    title: one line, begins with "cannot". detail: the cause, may be empty. hint: what to type, may be empty.
    by: between nodes, the fingerprint of the node that caused it, where that is not the one that reports it.
    """

    def __init__(self, code: Code, title: str, detail: str = "", hint: str = "", *, by: str = "") -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.code = code
        self.title = title
        self.detail = detail
        self.hint = hint
        self.by = by

    @property
    def status(self) -> int:
        """The HTTP status of this error; 400 unless the code has another one."""
        return _STATUS.get(self.code, 400)

    def problem(self) -> dict[str, object]:
        """This error as an RFC 9457 problem document, with two members more: `code` and `hint`."""
        return {
            "type": f"urn:meshd:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": str(self.code),
            "hint": self.hint,
        }

    @classmethod
    def from_problem(cls, document: dict[str, object]) -> MeshError:
        """The error in a problem document of another node. An unknown code (a newer node) becomes INTERNAL."""
        raw = str(document.get("code", ""))
        code = Code(raw) if raw in set(Code) else Code.INTERNAL
        return cls(
            code,
            str(document.get("title", "cannot do that")),
            str(document.get("detail", "")),
            str(document.get("hint", "")),
            by=str(document.get("by", "")),
        )


def leaf(exc: BaseException) -> BaseException:
    """The first exception in an ExceptionGroup, however deep; any other exception itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def one_line(exc: BaseException) -> str:
    """An exception as one line of bounded length."""
    found = leaf(exc)
    text = str(found) if isinstance(found, MeshError) else f"{type(found).__name__}: {found}".rstrip(": ")
    if isinstance(found, OSError) and found.strerror:
        text = f"{found.strerror}: {found.filename}" if found.filename else found.strerror
    return " ".join(text.split())[:_LINE_MOST]


START_AGAIN = (
    "see why: journalctl -u meshd, or where you started it; then: sudo systemctl restart meshd, or: meshd run"
)
"""The hint where the daemon has ended by a fault."""


def mistake(title: str = "cannot do that") -> MeshError:
    """The error for a bug in meshd. The caller logs the exception itself."""
    return MeshError(
        Code.INTERNAL,
        title,
        "meshd made a mistake; its journal has the details",
        "journalctl -u meshd",
    )
