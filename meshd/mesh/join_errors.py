"""The errors of a refused joiner for its person, in this node's own words, as a stranger's are never shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshd.errors import Code, MeshError

# Codes that end the conversation with a member: cause and hint.
FINAL = {
    Code.DENIED: (
        "a member denied this node",
        "ask the people of the mesh why; ten minutes after that it may ask again: {again}",
    ),
    Code.NAME_TAKEN: (
        "another member has the name of this node",
        "choose another one: {again} --name NAME",
    ),
    Code.FORGOTTEN: (
        "the mesh has forgotten this node's key for good",
        "move the state folder of this machine away, start meshd again, and join as a new node: {again}",
    ),
    Code.BAD_NAME: (
        "a member cannot take the name of this node",
        "choose another one: {again} --name NAME",
    ),
    Code.BAD_REQUEST: (
        "a member does not understand this node",
        "update meshd on the older of the two machines (meshctl version), then again: {again}",
    ),
}
# Codes that do not, and why: the joiner asks again.
RETRIED = {
    Code.BUSY: "too many nodes ask it at this moment",
    Code.NO_MESH: "it is in no mesh",
}


def refused(code: Code, again: str) -> MeshError:
    """The error for a member's final refusal. again: what a person types to join again."""
    detail, hint = FINAL[code]
    return MeshError(code, "cannot join", detail, hint.format(again=again))


def not_approved(
    total_s: float, name: str, again: str, *, asked: Iterable[str], failed: Mapping[str, str]
) -> MeshError:
    """The error for no approval in time.

    name: this node's. asked: addresses that showed a code. failed: address -> why.
    """
    minutes = f"{total_s / 60:.0f} minutes" if total_s >= 120 else f"{total_s:.0f} seconds"
    if shown := ", ".join(asked):
        return MeshError(
            Code.NOT_READY,
            "cannot join yet",
            f"nobody approved this node within {minutes}; asked: {shown}",
            f"type {again} here, and while it waits on one of those: meshctl approve {name}",
        )
    why = "; ".join(f"{address}: {reason}" for address, reason in failed.items())
    return MeshError(
        Code.NOT_READY,
        "cannot join yet",
        f"nobody approved this node within {minutes}: no member of a mesh was heard of"
        + (f" ({why[:500]})" if why else ""),
        f"see that meshd runs on a member and is on this network (there: meshctl status); then again: {again}",
    )


def wrong_member(name: str, again: str) -> MeshError:
    """The error for a member that the person here has rejected as the wrong one."""
    return MeshError(
        Code.DENIED,
        "cannot join",
        "you said that it is not the member whose code was compared",
        f"ask the people of the mesh which machine is theirs; there: meshctl forget {name}; then again: {again}",
    )


def bad_answer(why: str) -> MeshError:
    """The error for an approval whose content is invalid."""
    return MeshError(
        Code.INTERNAL,
        "cannot join",
        f"the answer of the member that admitted this node cannot be used: {why}",
        "see that both machines run a meshd of about the same age: meshctl version",
    )


def printable(text: str) -> str:
    """A stranger's text, where there is no other, truncated and without terminal control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
