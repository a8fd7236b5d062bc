"""What every message of the daemon promises: its hint can be typed as it stands."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import quoted


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_shell_gives_meshctl_exactly_the_name_that_a_hint_quotes(name: str) -> None:
    words = shlex.split(f"meshctl ls {quoted(name)}")
    assert words[-1] == name
    assert words[2:-1] == (["--"] if name.startswith("-") else [])


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("minutes-1974.pdf", "minutes-1974.pdf"),
        ("it is", "'it is'"),
        ("$(reboot)", "'$(reboot)'"),
        ("-rf", "-- -rf"),
        ("", "''"),
    ],
)
def test_a_name_is_quoted_only_where_a_shell_would_take_it_apart(name: str, typed: str) -> None:
    assert quoted(name) == typed
