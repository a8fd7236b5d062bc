"""One rule for names and numbers, wherever they are looked at."""

from __future__ import annotations

import pytest

from meshctl import render, walk
from meshctl.arguments import BadValueError
from meshctl.commands import pin
from meshd import model, names, wire


def test_the_client_refuses_just_the_names_that_the_daemon_refuses() -> None:
    assert render.UNSEEN == names.UNSEEN
    assert walk.NAME_BYTES == names.NAME_BYTES


@pytest.mark.parametrize("name", ["a\n", "\x1b[2J", "\u202eexe.txt", "a\u200bb", "a\u2028", "\x7f", "\udc80"])
def test_what_does_not_show_is_seen(name: str) -> None:
    assert names.has_unseen(name)


@pytest.mark.parametrize("name", ["minutes.txt", "Protokoll März.pdf", "議事録", "a b", "why\uf022"])
def test_what_people_and_their_machines_write_is_taken(name: str) -> None:
    """The last one: how a Mac writes a ? to a share."""
    assert not names.has_unseen(name)


def test_as_many_copies_as_the_daemon_takes_can_be_typed() -> None:
    assert pin._replicas(str(model.REPLICAS_MOST)) == model.REPLICAS_MOST
    with pytest.raises(BadValueError, match=f"from 1 to {model.REPLICAS_MOST} "):
        pin._replicas(str(model.REPLICAS_MOST + 1))
    wire.PinRequest(name="a", replicas=model.REPLICAS_MOST)
    with pytest.raises(ValueError, match="less than or equal to"):
        wire.PinRequest(name="a", replicas=model.REPLICAS_MOST + 1)
