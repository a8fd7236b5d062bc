"""The code that two people compare: the same on both machines, and another one as soon as anything is another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.mesh.sas import code, commitment, commits_to, new_nonce, same, statement
from meshd.wire import Joiner

_HEX64 = st.text("0123456789abcdef", min_size=64, max_size=64)
_WORD = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), max_size=12)
_JOINERS = st.builds(
    Joiner,
    name=_WORD,
    certificate=_WORD,
    address=_WORD,
    peer_port=st.integers(1, 65535),
    swarm_port=st.integers(1, 65535),
    cluster_port=st.integers(1, 65535),
    kubo_id=_WORD,
    cluster_id=_WORD,
    site=_WORD,
)
_BARN = Joiner(
    name="barn",
    certificate="pem",
    address="10.0.0.2",
    peer_port=4010,
    swarm_port=4001,
    cluster_port=9096,
    kubo_id="k",
    cluster_id="c",
)
_SAID = ("a" * 64, "1" * 64, "b" * 64, "2" * 64, _BARN)


def test_the_code_of_one_conversation_is_this_one() -> None:
    """Two machines of different age must show the same: a change here is a change of the protocol."""
    assert code(*_SAID) == "7674 7701 0501"
    assert (
        commitment("b" * 64, "2" * 64) == "d2aaae81ee9839bf5c882d6e57ae9506b4f593a3dc80c2991b9fdfc3bd235202"
    )


@given(_HEX64, _HEX64, _HEX64, _HEX64, _JOINERS)
def test_both_machines_show_the_same(
    member: str, member_nonce: str, fingerprint: str, joiner_nonce: str, joiner: Joiner
) -> None:
    here = code(member, member_nonce, fingerprint, joiner_nonce, joiner)
    over_the_wire = Joiner.model_validate_json(joiner.model_dump_json())
    assert here == code(member, member_nonce, fingerprint, joiner_nonce, over_the_wire)
    assert re.fullmatch(r"\d{4} \d{4} \d{4}", here)


@given(st.integers(0, 3), _HEX64)
def test_another_key_or_nonce_is_another_code(which: int, other: str) -> None:
    said = list(_SAID)
    if other == said[which]:
        return
    said[which] = other
    assert code(*said) != code(*_SAID)  # type: ignore[arg-type]


@given(_JOINERS)
def test_another_document_is_another_code_and_another_statement(other: Joiner) -> None:
    if other == _BARN:
        return
    assert code(*_SAID[:4], other) != code(*_SAID)
    assert statement("a" * 64, "1" * 64, "2" * 64, other) != statement("a" * 64, "1" * 64, "2" * 64, _BARN)


@pytest.mark.parametrize("changed", [field for field in Joiner.model_fields if not field.endswith("port")])
def test_every_word_of_the_document_counts(changed: str) -> None:
    assert code(*_SAID[:4], _BARN.model_copy(update={changed: "other"})) != code(*_SAID)


def test_who_is_who_counts() -> None:
    member, member_nonce, joiner, joiner_nonce, document = _SAID
    assert code(joiner, member_nonce, member, joiner_nonce, document) != code(*_SAID)
    assert code(member, joiner_nonce, joiner, member_nonce, document) != code(*_SAID)


@given(st.tuples(_WORD, _WORD, _WORD), st.tuples(_WORD, _WORD, _WORD))
def test_parts_cannot_be_cut_elsewhere(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Nobody can move a letter from one part to the next and have the same signed."""
    assert (statement(*one, _BARN) == statement(*other, _BARN)) == (one == other)


def test_parts_that_read_alike_are_told_apart() -> None:
    assert statement("ab", "c", "d", _BARN) != statement("a", "bc", "d", _BARN)
    assert commitment("ab", "c") != commitment("a", "bc")


@given(_HEX64, _HEX64, _HEX64)
def test_a_commitment_holds_one_nonce_of_one_node(joiner: str, nonce: str, other: str) -> None:
    made = commitment(joiner, nonce)
    assert commits_to(made, joiner, nonce)
    assert commits_to(made, joiner, other) == (other == nonce)
    assert commits_to(made, other, nonce) == (other == joiner)


def test_nonces_are_never_the_same() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
    assert re.fullmatch(r"[0-9a-f]{64}", new_nonce())


@pytest.mark.parametrize(
    ("typed", "is_it"),
    [
        ("1234 5678 9012", True),
        ("123456789012", True),
        (" 1234-5678-9012\n", True),
        ("code: 1234.5678.9012", True),
        ("1234 5678 9013", False),
        ("1234 5678", False),
        ("1234 5678 9012 1", False),
        ("", False),
        ("\u0661\u0662\u0663\u0664 5678 9012", False),
        ("1234 5678 9012 \u0661", True),
    ],
)
def test_only_digits_count_when_codes_are_compared(typed: str, is_it: bool) -> None:
    assert same("1234 5678 9012", typed) is is_it


def test_no_code_is_the_same_as_no_code() -> None:
    assert not same("", "")
