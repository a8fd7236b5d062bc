"""The invite line, `meshd1.<base64url>`, and the statement that a joiner signs.

Inside the base64url: two bytes of length, the body (JSON), six bytes of its sha256. So a truncated line and one with a
wrong letter are detected, each as what it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshd.config import NODE_NAME
from meshd.errors import Code, MeshError
from meshd.mesh.canonical import document, framed
from meshd.wire import Joiner

_PREFIX = "meshd1."
_ANY_PREFIX = re.compile(r"meshd(\d{1,4})\.")
_LETTERS = re.compile(r"[A-Za-z0-9_-]*")
_CHECK = 6  # bytes of sha256
_DOMAIN = b"meshd join 1"
_ASK_AGAIN = "ask a member for a new one: meshctl invite"
_COPY_AGAIN = "copy the whole line that meshctl invite printed, from meshd1. to its end"


@dataclass(frozen=True, slots=True)
class Invitation:
    """The content of an invite line.

    overlay: "static" or "zerotier", then with the network's id in `network`. addresses: "ip:port" of the issuer's peer
    API. fingerprint: the issuer's. token: 64 hex digits, single use, secret until it is used. expires: seconds since
    1970, by the issuer's clock.
    """

    mesh_name: str
    mesh_id: str
    overlay: str
    addresses: tuple[str, ...]
    fingerprint: str
    invite_id: str
    token: str = field(repr=False)
    expires: float = 0.0
    network: str = ""


class _Body(BaseModel):
    """Short names: people paste this line into messages."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    m: Annotated[str, Field(pattern=f"^(?:{NODE_NAME.pattern})$")]
    i: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    o: Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]
    a: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-fA-F.:\[\]]{3,64}$")]], Field(min_length=1, max_length=16)
    ]
    f: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    n: Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]
    t: Annotated[str, Field(pattern=r"^[0-9a-f]{32,64}$")]
    e: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    z: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""


def encode(invitation: Invitation) -> str:
    """Encode an invite as the line that a person sends. It holds the token: never log it."""
    body: dict[str, object] = {
        "m": invitation.mesh_name,
        "i": invitation.mesh_id,
        "o": invitation.overlay,
        "a": list(invitation.addresses),
        "f": invitation.fingerprint,
        "n": invitation.invite_id,
        "t": invitation.token,
        "e": invitation.expires,
    }
    if invitation.network:
        body["z"] = invitation.network
    raw = json.dumps(body, separators=(",", ":")).encode()
    framed = len(raw).to_bytes(2) + raw + hashlib.sha256(raw).digest()[:_CHECK]
    return _PREFIX + base64.urlsafe_b64encode(framed).decode().rstrip("=")


def decode(text: str, now: float | None) -> Invitation:
    """Decode an invite line. Ignores spaces and line breaks inside it, and quotes around it.

    now: seconds since 1970; None accepts an expired invite, too. Raises MeshError BAD_INVITE (what is wrong with the
    line) or INVITE_EXPIRED.
    """
    line = "".join(text.split()).strip("\"'`<>")
    version = _ANY_PREFIX.match(line)
    if version is None:
        raise _bad("it does not begin with meshd1. as an invite does", _COPY_AGAIN)
    if version[0] != _PREFIX:
        raise _bad(
            f"it is of format {version[1]}, made by a newer meshd",
            "update meshd on this machine, then: meshctl join",
        )
    invitation = _parse(_unframe(line.removeprefix(_PREFIX)))
    if now is not None and now >= invitation.expires:
        raise MeshError(Code.INVITE_EXPIRED, "cannot use this invite", "its time is over", _ASK_AGAIN)
    return invitation


def _unframe(letters: str) -> bytes:
    if not _LETTERS.fullmatch(letters):
        odd = next(letter for letter in letters if not _LETTERS.fullmatch(letter))
        raise _bad(f"it holds {odd!r}, which no invite has", _COPY_AGAIN)
    usable = letters[: len(letters) - 1] if len(letters) % 4 == 1 else letters
    try:
        framed = base64.urlsafe_b64decode(usable + "=" * (-len(usable) % 4))
    except (
        binascii.Error,
        ValueError,
    ):  # pragma: no cover -- the letters were checked; this catches what remains
        raise _bad("it is not base64url", _COPY_AGAIN) from None
    expected = 2 + int.from_bytes(framed[:2]) + _CHECK
    if len(framed) < max(expected, 2 + _CHECK):
        raise _bad("its end is missing: it was cut off", _COPY_AGAIN)
    if len(framed) > expected or len(usable) != len(letters):
        raise _bad("there is more after its end", _COPY_AGAIN)
    body, check = framed[2:-_CHECK], framed[-_CHECK:]
    if hashlib.sha256(body).digest()[:_CHECK] != check:
        raise _bad("a letter in it is wrong: its checksum does not match", _COPY_AGAIN)
    return body


def _parse(raw: bytes) -> Invitation:
    try:
        body = _Body.model_validate_json(raw)
    except ValidationError:  # the checksum is right, so the issuer made it this way
        raise _bad("what is in it is not an invite", _ASK_AGAIN) from None
    return Invitation(body.m, body.i, body.o, tuple(body.a), body.f, body.n, body.t, body.e, body.z)


def token_hash(token: str) -> str:
    """The hash of a token, all that the issuer stores of it: sha256, hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def statement(nonce: str, server: str, invite_id: str, token: str, joiner: Joiner) -> bytes:
    """The bytes that a joiner signs. nonce: the server's. server: the fingerprint that was dialled."""
    return framed(_DOMAIN, nonce, server, invite_id, token, document(joiner))


def _bad(cause: str, hint: str) -> MeshError:
    return MeshError(Code.BAD_INVITE, "cannot use this invite", cause, hint)


def host_port(address: str, port: int) -> str:
    """`address:port` as invites and URLs write it: IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_host_port(text: str) -> tuple[str, int]:
    """Split what `host_port` made. Raises ValueError."""
    host, _, port = text.rpartition(":")
    address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    if not 0 < int(port) < 65536:
        raise ValueError("a port is from 1 to 65535")
    return address, int(port)
