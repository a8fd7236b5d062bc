"""The invite line: whole, or told apart by what is wrong with it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import Code, MeshError
from meshd.mesh.invites import Invitation, decode, encode, host_port, split_host_port, statement, token_hash
from meshd.wire import Joiner

_HEX = "0123456789abcdef"


def _hex(length: int) -> st.SearchStrategy[str]:
    return st.text(_HEX, min_size=length, max_size=length)


_INVITATIONS = st.builds(
    Invitation,
    mesh_name=st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True),
    mesh_id=_hex(32),
    overlay=st.sampled_from(["static", "zerotier"]),
    addresses=st.lists(
        st.ip_addresses().map(lambda ip: host_port(str(ip), 4010)), min_size=1, max_size=4
    ).map(tuple),
    fingerprint=_hex(64),
    invite_id=_hex(8),
    token=_hex(64),
    expires=st.floats(1.0, 1e11),
)
_ONE = Invitation("archive", "0" * 32, "static", ("10.1.2.3:4010",), "a" * 64, "b" * 8, "c" * 64, 1000.0)


def _refusal(line: str, now: float = 0.0) -> MeshError:
    with pytest.raises(MeshError) as caught:
        decode(line, now)
    assert caught.value.title.startswith("cannot ")
    assert caught.value.hint
    assert "c" * 64 not in str(caught.value.problem())
    return caught.value


@given(_INVITATIONS)
def test_what_was_written_is_read(invitation: Invitation) -> None:
    assert decode(encode(invitation), 0.0) == invitation


@given(_INVITATIONS, st.data())
def test_cut_off_anywhere(invitation: Invitation, data: st.DataObject) -> None:
    line = encode(invitation)
    shorter = line[: data.draw(st.integers(len("meshd1."), len(line) - 1))]
    refusal = _refusal(shorter)
    assert refusal.code is Code.BAD_INVITE
    assert "cut off" in refusal.detail


@given(_INVITATIONS, st.data())
def test_a_wrong_letter_is_noticed(invitation: Invitation, data: st.DataObject) -> None:
    line = encode(invitation)
    at = data.draw(st.integers(len("meshd1."), len(line) - 2))  # the last letter has bits that mean nothing
    letter = data.draw(
        st.sampled_from(string.ascii_letters + string.digits + "-_").filter(lambda x: x != line[at])
    )
    assert _refusal(line[:at] + letter + line[at + 1 :]).code is Code.BAD_INVITE


@given(st.text(max_size=300))
def test_anything_at_all_is_refused_and_nothing_breaks(text: str) -> None:
    assert _refusal(text).code is Code.BAD_INVITE
    assert _refusal("meshd1." + text).code is Code.BAD_INVITE


def test_wrapped_and_quoted_by_a_mail_program() -> None:
    line = encode(_ONE)
    assert decode(f"  '{line[:40]}\n  {line[40:90]}\r\n{line[90:]}' \n", 0.0) == _ONE


def test_more_after_its_end() -> None:
    assert "after its end" in _refusal(encode(_ONE) + encode(_ONE).removeprefix("meshd1.")).detail


def test_a_newer_format_is_said() -> None:
    refusal = _refusal("meshd2." + encode(_ONE).removeprefix("meshd1."))
    assert "newer" in refusal.detail
    assert "update" in refusal.hint


def test_expired() -> None:
    line = encode(_ONE)
    assert decode(line, 999.9) == decode(line, None) == _ONE
    refusal = _refusal(line, 1000.0)
    assert refusal.code is Code.INVITE_EXPIRED


def test_the_token_does_not_show() -> None:
    assert _ONE.token not in repr(_ONE)
    assert _ONE.token not in token_hash(_ONE.token)


def test_no_two_sets_of_parts_are_signed_alike() -> None:
    joiner = Joiner(
        name="barn",
        certificate="",
        address="10.0.0.1",
        peer_port=1,
        swarm_port=2,
        cluster_port=3,
        kubo_id="",
        cluster_id="",
    )
    base = statement("ab", "cd", "ef", "gh", joiner)
    others = [
        statement("xx", "cd", "ef", "gh", joiner),
        statement("ab", "xx", "ef", "gh", joiner),
        statement("ab", "cd", "xx", "gh", joiner),
        statement("abc", "d", "ef", "gh", joiner),
        statement("ab", "cd", "efg", "h", joiner),
        statement("ab", "cd", "ef", "gx", joiner),
        statement("ab", "cd", "ef", "gh", joiner.model_copy(update={"name": "attic"})),
        statement("ab", "cd", "ef", "gh", joiner.model_copy(update={"site": "home"})),
    ]
    assert len({base, *others}) == 1 + len(others)


@pytest.mark.parametrize("text", ["10.0.0.1:4010", "[fd00::1]:4010"])
def test_addresses(text: str) -> None:
    assert host_port(*split_host_port(text)) == text


@pytest.mark.parametrize("text", ["", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "host:1", "10.0.0.1:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        split_host_port(text)
