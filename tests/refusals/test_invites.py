"""An invite that admits nobody: each says why, with exit code 1, and leaves the joiner's state as it was."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import Node
from tests.refusals.daemon import contents

pytestmark = pytest.mark.mesh

COPY_AGAIN = "copy the whole line that meshctl invite printed, from meshd1. to its end"
ASK_AGAIN = "ask a member for a new one: meshctl invite"


@pytest.fixture(scope="module")
def founder(make_nodes: MakeNode) -> Node:
    """A mesh of one."""
    node = make_nodes("attic").start()
    node.do("init", "--name", "archive")
    return node


@pytest.fixture(scope="module")
def joiner(make_nodes: MakeNode) -> Node:
    """A machine in no mesh."""
    return make_nodes("barn").start()


def _invite(node: Node) -> str:
    return node.do("invite").out.strip()


def forged(line: str, **changes: Any) -> str:
    """That invite with other words in it, and a checksum that is right."""
    letters = line.removeprefix("meshd1.")
    framed = base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
    raw = json.dumps(json.loads(framed[2:-6]) | changes, separators=(",", ":")).encode()
    framed = len(raw).to_bytes(2) + raw + hashlib.sha256(raw).digest()[:6]
    return "meshd1." + base64.urlsafe_b64encode(framed).decode().rstrip("=")


def _refuses(joiner: Node, line: str, said: str, hint: str, *, code: int = 1) -> None:
    """`meshctl join` ends with that error, whatever steps it shows before, and nothing is changed."""
    before = contents(joiner.state)
    answer = joiner.meshctl("join", line)
    assert (answer.code, answer.out) == (code, "")
    error = answer.err[answer.err.index("meshctl: ") :]
    assert error == f"meshctl: {said}\n  try: {hint}\n"
    assert contents(joiner.state) == before
    assert joiner.status()["mesh"] is None


def test_a_truncated_one(founder: Node, joiner: Node) -> None:
    line = _invite(founder)
    for cut in (line[:-1], line[:80]):
        _refuses(joiner, cut, "cannot use this invite: its end is missing: it was cut off", COPY_AGAIN)


def test_one_with_a_wrong_letter(founder: Node, joiner: Node) -> None:
    line = _invite(founder)
    wrong = line[:60] + ("A" if line[60] != "A" else "B") + line[61:]
    said = "cannot use this invite: a letter in it is wrong: its checksum does not match"
    _refuses(joiner, wrong, said, COPY_AGAIN)


def test_what_is_none(joiner: Node) -> None:
    said = "cannot use this invite: it does not begin with meshd1. as an invite does"
    _refuses(joiner, "minutes-1974.pdf", said, COPY_AGAIN)


def test_one_of_a_newer_meshd(founder: Node, joiner: Node) -> None:
    said = "cannot use this invite: it is of format 2, made by a newer meshd"
    hint = "update meshd on this machine, then: meshctl join"
    _refuses(joiner, "meshd2." + _invite(founder)[7:], said, hint)


def test_an_expired_one(founder: Node, joiner: Node) -> None:
    """Nobody is asked; and who turns its time forward is refused by the one who made it."""
    line = founder.api("POST", "/v1/invites", {"expires_s": 0.01}).json()["invite"]
    _refuses(joiner, line, "cannot use this invite: its time is over", ASK_AGAIN)
    _refuses(joiner, forged(line, e=9e9), "cannot join with this invite: its time is over", ASK_AGAIN)


def test_a_revoked_one(founder: Node, joiner: Node) -> None:
    invite = founder.do("invite", "--json").document()
    founder.do("invite", "--revoke", invite["id"])
    _refuses(joiner, invite["invite"], "cannot join with this invite: it was revoked", ASK_AGAIN)


@pytest.mark.parametrize("changes", [{"t": "0" * 64}, {"n": "0" * 8}], ids=["its token", "its number"])
def test_a_forged_one(founder: Node, joiner: Node, changes: dict[str, str]) -> None:
    said = "cannot join with this invite: this node did not issue it, or withdrew it long ago"
    _refuses(joiner, forged(_invite(founder), **changes), said, ASK_AGAIN)


def test_one_that_leads_to_another_node(founder: Node, joiner: Node) -> None:
    line = _invite(founder)
    before = contents(joiner.state)
    answer = joiner.meshctl("join", forged(line, f="0" * 64))
    assert answer.code == 5
    assert (
        f"cannot join archive: at {founder.address}:4010 answers another node than the one that made the invite"
        in answer.err
    )
    assert "nothing was told to it\n  try: ask the one who sent the invite" in answer.err
    assert contents(joiner.state) == before
    assert "barn" not in founder.peers()


def test_one_with_a_name_that_would_colour_the_terminal(founder: Node, joiner: Node) -> None:
    line = forged(_invite(founder), m="\x1b[31mred")
    _refuses(joiner, line, "cannot use this invite: what is in it is not an invite", ASK_AGAIN)


def test_one_whose_maker_cannot_be_reached(founder: Node, joiner: Node) -> None:
    line = forged(_invite(founder), a=[f"{joiner.address}:4999"])
    before = contents(joiner.state)
    answer = joiner.meshctl("join", line)
    assert answer.code == 1
    assert f"cannot join archive: nobody answers at {joiner.address}:4999" in answer.err
    assert "\n  try: see that this machine is on the same private network" in answer.err
    assert contents(joiner.state) == before


def test_a_name_that_is_taken(founder: Node, joiner: Node) -> None:
    """Case does not matter. The invite is still good afterwards."""
    line = _invite(founder)
    before = contents(joiner.state)
    answer = joiner.meshctl("join", line, "--name", "ATTIC")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.endswith(
        "meshctl: cannot join as ATTIC: another member has that name\n"
        "  try: choose another one; the invite is still good: meshctl join --name NAME\n"
    )
    assert contents(joiner.state) == before


def test_a_name_that_is_none(founder: Node, joiner: Node) -> None:
    line = _invite(founder)
    for name, shown in (
        ("a\x1b[31m", "'a\\x1b[31m'"),
        ("dachgeschoß", "'dachgescho\\xdf'"),
        ("a" * 64, repr("a" * 64)),
    ):
        before = contents(joiner.state)
        answer = joiner.meshctl("join", line, "--name", name)
        assert answer.code == 1
        assert answer.err.startswith(
            f"meshctl: cannot use {shown} as this node's name: expected 1 to 63 of the letters"
        )
        assert "\x1b" not in answer.err
        assert contents(joiner.state) == before


def test_a_used_one_and_two_joins_at_once(founder: Node, make_node: MakeNode) -> None:
    first, second = make_node("cellar").start(), make_node("dairy").start()
    line = _invite(founder)
    both = [first.popen("join", line) for _ in range(2)]
    ends = []
    try:
        for joining in both:
            out, err = joining.communicate(timeout=90)
            ends.append((joining.returncode, out.decode(), err.decode()))
    finally:
        for joining in both:
            joining.kill()
            joining.communicate()
    (won, lost) = sorted(ends)
    assert won[:2] == (0, "This node, cellar, joined the mesh archive, which has 2 members now.\n")
    assert lost == (
        1,
        "",
        "meshctl: cannot begin now: another init or join is under way on this node\n"
        "  try: wait for it to end; see how it went: meshctl status\n",
    )
    used = "cannot join with this invite: another node has joined with it: each invite admits one"
    _refuses(second, line, used, ASK_AGAIN)
    founder.do("forget", "cellar", "--yes", "--force")


def test_one_to_another_mesh_while_in_one(founder: Node, make_node: MakeNode) -> None:
    other = make_node("eaves").start()
    other.do("init", "--name", "elsewhere")
    before = contents(founder.state)["mesh.json"]
    line = _invite(other)
    answer = founder.meshctl("join", line)
    assert (answer.code, answer.err) == (
        1,
        "meshctl: cannot join elsewhere: this node is in the mesh archive\n  try: meshctl leave, then try again\n",
    )
    assert contents(founder.state)["mesh.json"] == before
    assert set(other.peers()) == {"eaves"}
