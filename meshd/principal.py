"""Principals: the caller of a request, its authentication and its role. One access decision for all listeners. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshd.errors import Code, MeshError

How = Literal["local", "loopback", "member", "scraper", "stranger"]
"""Authenticated by: SO_PEERCRED on the control socket; a loopback connection, without a user; mutual TLS with a
certificate of the roster; a bearer token for the metrics; nothing.
"""
Role = Literal["none", "read", "write", "admin"]
"""Roles at this node. Each one includes those before it."""
Access = Literal["stranger", "member", "scraper", "read", "write", "admin"]
"""The access that a route requires: nothing, a member, a scraper's token, or at least that role."""

_RANK: dict[str, int] = {"none": 0, "read": 1, "write": 2, "admin": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller of one request.

    label: for the log and for people. uid: of a local user. fingerprint: of a member. address: the caller's IP
    address, "" on a Unix socket. Raises ValueError for an admin that is not local: nobody administers a node from
    outside.
    """

    label: str
    how: How
    role: Role = "none"
    uid: int | None = None
    fingerprint: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        if self.role == "admin" and self.how != "local":
            raise ValueError(f"{self.label} is not local and cannot be an admin")

    def member(self) -> str:
        """The fingerprint of a member. Raises MeshError DENIED for any other caller, even one that the route admits."""
        if self.how != "member":
            raise MeshError(
                Code.DENIED, "cannot do that for a stranger", "only members of the mesh may ask this"
            )
        return self.fingerprint


def may(principal: Principal, access: Access) -> bool:
    """Whether a caller has that access."""
    if access == "stranger":
        return True
    if access in ("member", "scraper"):
        return principal.how == access
    if access == "admin" and principal.how != "local":
        return False
    return _RANK[principal.role] >= _RANK[access]


def check(principal: Principal, access: Access) -> None:
    """Check access. Raises MeshError DENIED with a hint."""
    if not may(principal, access):
        raise _denial(principal, access)


def _denial(principal: Principal, access: Access) -> MeshError:
    if access == "member":
        return MeshError(
            Code.DENIED,
            "cannot answer a stranger",
            "only members of the mesh may ask this",
            "join it first: meshctl join",
        )
    if access == "scraper":
        return MeshError(
            Code.DENIED,
            "cannot show the metrics",
            "the request carries no token, or not the one of [metrics] peer_token_file",
            "give it to Prometheus: authorization: {credentials_file: FILE}",
        )
    if principal.how == "local" and principal.role == "none":
        return MeshError(
            Code.DENIED,
            "cannot talk to meshd",
            f"{principal.label} is not in its group",
            "sudo usermod -aG meshd $USER, then log in again; or: sudo meshctl ...",
        )
    if principal.role == "read":
        return MeshError(Code.DENIED, "cannot do that", "your group may only look", "sudo meshctl ...")
    return MeshError(
        Code.DENIED, "cannot do that", f"{principal.label} may not", "on that machine: sudo meshctl ..."
    )
