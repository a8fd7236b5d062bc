"""Joining without an invite: a node asks, a person compares a code and admits it. Both APIs' shapes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meshd.wire.base import Request, Wire
from meshd.wire.peer import Admitted, Joiner

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # 32 bytes

# -- between the node that asks and a member: the peer API ----------------------------------------------------------


class Ask(Request):
    """commitment: sha256 of the asking node's nonce, told before it sees the member's, so that nobody between the two
    can try nonces until the codes match (see mesh/sas.py)."""

    protocol: int
    commitment: Hex32
    joiner: Joiner


class Asked(Wire):
    """id: known to the two alone; whoever has it may look at the answer. nonce: the member's."""

    id: Hex32
    nonce: Hex32


class Reveal(Request):
    """nonce: what the commitment is of. signature: hex, by the joiner's key over all of it (see mesh/sas.py)."""

    id: Hex32
    nonce: Hex32
    signature: str


class AskingId(Request):
    id: Hex32


class AskAnswer(Wire):
    """waiting: nobody has decided yet. admitted is there in that state only.

    here: a person said yes at this member, to the code that it showed; else another member has admitted the node.
    """

    state: Literal["waiting", "admitted", "denied"]
    admitted: Admitted | None = None
    here: bool = False


# -- between meshctl and meshd: the control API ----------------------------------------------------------------------


class JoinRequestView(Wire):
    """A node that waits to be let in, as a member shows it.

    id: what `approve` takes. stage: "network" - it waits to be authorized on the ZeroTier network, and is known by its
    ZeroTier address `node`, by the IP address from which ZeroTier reaches this machine, and where its admin page has one
    by a name; "mesh" - it asks to join the mesh, and there is a code. member: it is a member of the mesh that was taken off
    the network. since, until: wall clock seconds, 0 where that is not known.
    """

    id: str
    stage: Literal["network", "mesh"]
    node: str = ""
    name: str = ""
    member: bool = False
    address: str = ""
    fingerprint: str = ""
    code: str = ""
    since: float = 0.0
    until: float | None = None


class JoinRequests(Wire):
    """why_no_network: why this node cannot see or authorize who waits on the network; "" where it can."""

    requests: list[JoinRequestView]
    why_no_network: str = ""


class ApproveRequest(Request):
    """code: the one that the other machine shows; only digits count. Admitted only where it is the request's."""

    code: str


class CodeEvent(Wire):
    """The asking node has been heard by a member: the code to compare. address: the member's peer API."""

    event: Literal["code"] = "code"
    address: str
    code: str


class ConfirmEvent(Wire):
    """A member says that this node is admitted: the person here says whether that was the right one. code: what it
    showed, "" where it showed none, as it says that this node is a member already. fingerprint: the member's."""

    event: Literal["confirm"] = "confirm"
    address: str
    code: str
    fingerprint: str


class ConfirmAdmission(Request):
    """The answer to a ConfirmEvent, which names the member by its fingerprint."""

    fingerprint: Hex32
    right: bool


class Heard(Wire):
    """The answer was taken."""


class AuthorizedEvent(Wire):
    """The last event of `authorize`: the node is on the network and asks; nothing has been admitted yet.

    member: instead, the name of the member that it is already, and which was let onto the network again.
    """

    event: Literal["done"] = "done"
    request: JoinRequestView | None = None
    member: str = ""


class Approved(Wire):
    """It is a member now."""

    name: str
    fingerprint: str
