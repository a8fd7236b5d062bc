"""Following the events of one operation: early, late, after the end, together, and slowly."""

from __future__ import annotations

import asyncio

from meshd import wire
from meshd.operations.events import EVENTS_MOST, EventLog

DONE = wire.LeftEvent(mesh="archive")


def step(message: str, key: str = "") -> wire.StepEvent:
    return wire.StepEvent(message=message, key=key)


async def told(log: EventLog) -> list[wire.Wire]:
    return [event async for event in log.follow()]


async def test_who_follows_from_the_beginning_gets_each_event_when_it_comes() -> None:
    log = EventLog()
    following = log.follow()
    for number in range(3):
        log.append(step(f"{number}"))
        assert await anext(following) == step(f"{number}")
    log.close(DONE)
    assert [event async for event in following] == [DONE]


async def test_who_comes_late_gets_what_was_kept_and_then_what_comes() -> None:
    log = EventLog()
    log.append(step("before"))
    following = log.follow()
    assert await anext(following) == step("before")
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.append(step("meanwhile"))
    assert await waiting == step("meanwhile")
    log.close(DONE)
    assert await anext(following) == DONE


async def test_who_comes_after_the_end_gets_all_that_was_kept_and_how_it_ended() -> None:
    log = EventLog()
    log.append(step("one"))
    log.close(DONE)
    assert await told(log) == await told(log) == [step("one"), DONE]


async def test_two_followers_get_the_same() -> None:
    log = EventLog()
    both = asyncio.gather(told(log), told(log))
    for number in range(5):
        log.append(step(f"{number}"))
        await asyncio.sleep(0)
    log.close(DONE)
    first, second = await both
    assert first == second == [*(step(f"{n}") for n in range(5)), DONE]


async def test_a_follower_that_holds_still_delays_nobody_and_gets_the_end() -> None:
    """The work never waits: it is told that an event was taken before anybody has read it."""
    log = EventLog()
    slow = log.follow()
    log.append(step("first"))
    assert await anext(slow) == step("first")
    quick = asyncio.ensure_future(told(log))
    await asyncio.sleep(0)
    for number in range(3 * EVENTS_MOST):
        log.append(step(f"{number}"))
    log.close(DONE)
    assert (await quick)[-1] == DONE
    rest = [event async for event in slow]
    assert len(rest) == EVENTS_MOST + 1
    assert rest[-2:] == [step(f"{3 * EVENTS_MOST - 1}"), DONE]


async def test_what_is_kept_is_bounded_and_the_oldest_goes() -> None:
    log = EventLog(most=3)
    for number in range(10):
        log.append(step(f"{number}"))
    log.close(DONE)
    assert await told(log) == [step("7"), step("8"), step("9"), DONE]


async def test_what_is_said_anew_takes_the_place_of_what_was_said() -> None:
    """So however long it takes, nothing that stands for itself is dropped for what only says how far it is."""
    log = EventLog(most=6)
    log.append(wire.AddedEvent(root="r", size=9, files=1))
    for number in range(100):
        log.append(wire.ProgressEvent(bytes=number))
        log.append(wire.FetchingEvent(node="barn", bytes=number, size=100))
        log.append(wire.FetchingEvent(node="cellar", bytes=2 * number, size=100))
        log.append(step(f"waiting {number}", key="wait"))
    log.append(wire.CopyEvent(node="barn", held=1, wanted=2))
    log.close(DONE)
    assert await told(log) == [
        wire.AddedEvent(root="r", size=9, files=1),
        wire.ProgressEvent(bytes=99),
        wire.FetchingEvent(node="barn", bytes=99, size=100),
        wire.FetchingEvent(node="cellar", bytes=198, size=100),
        step("waiting 99", key="wait"),
        wire.CopyEvent(node="barn", held=1, wanted=2),
        DONE,
    ]


async def test_a_slow_follower_gets_nothing_that_is_out_of_date() -> None:
    log = EventLog()
    following = log.follow()
    log.append(step("begun"))
    for number in range(3):
        log.append(wire.ProgressEvent(bytes=number))
    assert await anext(following) == step("begun")
    log.append(wire.ProgressEvent(bytes=7))
    log.append(step("more"))
    log.close(DONE)
    assert [event async for event in following] == [wire.ProgressEvent(bytes=7), step("more"), DONE]
