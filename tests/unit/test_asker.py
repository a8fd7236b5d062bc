"""One node is asked about many CIDs: in one question, each at its own pace, and what it says is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from meshd.errors import Code, MeshError
from meshd.pins import copies
from meshd.pins.copies import Asker, Question
from meshd.wire import Confirmed
from tests.waiting import until

State = Literal["held", "fetching", "missing", "refused"]


class Node:
    """What the asked node says, and what it was asked."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.details: dict[str, str] = {}
        self.fetched: dict[str, int] = {}
        self.fetched_bytes: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.error: MeshError | None = None

    async def confirm(self, cids: list[str]) -> Confirmed:
        self.asked.append(sorted(cids))
        if self.error is not None:
            raise self.error
        states = {c: self.states[c] for c in cids if c in self.states}
        return Confirmed(
            states=states,
            details=self.details,
            fetched=dict(self.fetched),
            fetched_bytes=dict(self.fetched_bytes),
        )


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def asker(node: Node) -> AsyncIterator[Asker]:
    made = Asker("barn", node.confirm)
    yield made
    await made.stop()


async def becomes(question: Question, state: str) -> None:
    async with asyncio.timeout(30):
        while question.copy.state != state:
            question.changed.clear()
            await question.changed.wait()


async def test_nobody_is_asked_while_nobody_wants_to_know(node: Node, asker: Asker) -> None:
    question = asker.open("c1")
    await until(lambda: node.asked)
    asker.close(question)
    count = len(node.asked)
    other = asker.open("c2")
    await until(lambda: len(node.asked) > count)
    assert node.asked[count:] == [["c2"]] * len(node.asked[count:])
    asker.close(other)


async def test_those_who_wait_at_the_same_time_share_a_question(node: Node, asker: Asker) -> None:
    questions = [asker.open(cid) for cid in ("c1", "c2", "c3", "c1")]
    await until(lambda: node.asked)
    assert node.asked[0] == ["c1", "c2", "c3"]
    for question in questions:
        asker.close(question)


async def test_what_it_says_is_passed_on_and_told_when_it_changes(node: Node, asker: Asker) -> None:
    question = asker.open("c1")
    assert question.copy.state == "unknown"
    await becomes(question, "missing")
    node.states["c1"] = "fetching"
    await becomes(question, "fetching")
    since = question.since
    node.states["c1"] = "held"
    await becomes(question, "held")
    assert question.copy.node == "barn"
    assert question.since > since
    asker.close(question)


async def test_one_that_fetches_more_has_not_stalled(node: Node, asker: Asker) -> None:
    node.states["c1"], node.fetched["c1"] = "fetching", 1
    question = asker.open("c1")
    await becomes(question, "fetching")
    since, asked = question.since, len(node.asked)
    await until(lambda: len(node.asked) > asked + 1)
    assert question.since == since, "it has got nothing more"
    node.fetched["c1"] = 2
    await until(lambda: question.fetched == 2)
    assert question.since > since
    asker.close(question)


async def test_who_waits_hears_how_much_it_has_fetched(node: Node, asker: Asker) -> None:
    node.states["c1"], node.fetched_bytes["c1"] = "fetching", 262_144
    question = asker.open("c1")
    await becomes(question, "fetching")
    assert question.fetched_bytes == 262_144
    question.changed.clear()
    node.fetched_bytes["c1"] = 524_288
    async with asyncio.timeout(30):
        await question.changed.wait()
    assert question.fetched_bytes == 524_288
    asker.close(question)


async def test_a_refusal_comes_with_its_reason(node: Node, asker: Asker) -> None:
    node.states["c1"], node.details["c1"] = "refused", "the disk has 5 bytes free"
    question = asker.open("c1")
    await becomes(question, "refused")
    assert question.copy.detail == "the disk has 5 bytes free"
    asker.close(question)


async def test_a_node_that_does_not_answer_is_unknown_with_the_reason_until_it_answers(
    node: Node, asker: Asker
) -> None:
    node.error = MeshError(Code.PEER_UNREACHABLE, "cannot reach barn", "it does not answer")
    question = asker.open("c1")
    await question.changed.wait()
    assert (question.copy.state, question.copy.detail) == ("unknown", "it does not answer")
    node.error, node.states["c1"] = None, "held"
    await becomes(question, "held")
    asker.close(question)


async def test_who_waits_longer_asks_less_often(
    node: Node, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "LONGEST_PAUSE", 0.1)
    question = asker.open("c1")
    assert question.pause == copies.FIRST_PAUSE
    await until(lambda: len(node.asked) > 4)
    assert question.pause == 0.1
    new = asker.open("c2")
    assert new.pause == copies.FIRST_PAUSE
    await becomes(new, "missing")
    for each in (question, new):
        asker.close(each)


async def test_more_than_one_question_can_carry_are_asked_in_turn(
    node: Node, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_AT_ONCE", 10)
    questions = [asker.open(f"c{i}") for i in range(25)]
    await until(lambda: all(q.copy.state == "missing" for q in questions))
    assert max(map(len, node.asked)) == 10
    for question in questions:
        asker.close(question)


async def test_it_can_be_stopped_while_it_waits_for_an_answer(node: Node) -> None:
    begun = asyncio.Event()

    async def never(cids: list[str]) -> Confirmed:
        begun.set()
        await asyncio.Event().wait()
        return Confirmed(states={})

    asker = Asker("barn", never)
    asker.open("c1")
    await begun.wait()
    await asker.stop()
    await asker.stop()
