"""The registry: what it owns, what it records and when, whom it lets follow, and what goes."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from meshd import wire
from meshd.errors import Code, MeshError
from meshd.operations import registry
from meshd.operations.registry import Operations
from meshd.operations.store import Record
from tests.operations.conftest import NOW, Clock, MakeOperations
from tests.operations.works import ENTRY, LEFT, Held, ended, on_the_disk, problem, told

BUSY = MeshError(Code.BUSY, "cannot leave now", "others leave", "meshctl peers")


# -- one operation -------------------------------------------------------------------------------------------------


async def test_an_operation_has_an_id_a_state_and_events(operations: Operations, clock: Clock) -> None:
    work = Held(says=(ENTRY,))
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    assert operations.get(operation.id) == wire.Operation(
        id=operation.id, verb="pin", subject="minutes.pdf", by="anna", began=NOW, cid="bafyentry"
    )
    clock.seconds += 5
    work.go_on.set()
    assert await ended(operation) == [ENTRY, LEFT]
    after = operations.get(operation.id)
    assert (after.state, after.ended, after.error) == ("done", NOW + 5, None)


async def test_a_restore_is_called_by_its_name_once_that_is_known(operations: Operations) -> None:
    work = Held(says=(ENTRY,))
    operation = operations.begin("restore", "bafysomething", "anna", work)
    await work.begun.wait()
    assert operations.get(operation.id).subject == "minutes.pdf"


@pytest.mark.parametrize("ends", [BUSY, wire.ErrorEvent(problem=BUSY.problem())], ids=["raised", "told"])
async def test_an_error_is_the_last_event_and_stays_with_it(
    operations: Operations, ends: wire.Wire | Exception
) -> None:
    work = Held(ends)
    operation = operations.begin("leave", "archive", "anna", work)
    work.go_on.set()
    [last] = await ended(operation)
    assert problem(last).code is Code.BUSY
    view = operations.get(operation.id)
    assert (view.state, view.error) == ("failed", BUSY.problem())


async def test_a_mistake_is_told_as_one_and_nothing_of_it_is_raised(
    operations: Operations, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Held(ZeroDivisionError())
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    work.go_on.set()
    [last] = await ended(operation)
    assert problem(last).code is Code.INTERNAL
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert operation.task is not None
    await operation.task


async def test_two_clients_follow_the_same_one_and_a_third_comes_when_it_is_over(
    operations: Operations,
) -> None:
    work = Held(says=(ENTRY,))
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    both = asyncio.gather(told(operations, operation.id), told(operations, operation.id))
    await work.begun.wait()
    work.go_on.set()
    first, second = await both
    assert first == second == await told(operations, operation.id)
    assert [event["event"] for event in first] == ["entry", "done"]


async def test_who_does_not_read_holds_up_nothing(operations: Operations) -> None:
    many = tuple(wire.StepEvent(message=f"{n}") for n in range(2000))
    work = Held(says=many)
    operation = operations.begin("leave", "archive", "anna", work)
    slow = operation.follow()
    assert isinstance(await anext(slow), wire.StepEvent)
    await work.begun.wait()
    work.go_on.set()
    assert (await ended(operation))[-1] == LEFT


# -- what is recorded ----------------------------------------------------------------------------------------------


async def test_it_is_recorded_before_its_work_begins_and_after_that(
    operations: Operations, path: Path, tmp_path: Path
) -> None:
    work = Held()
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    assert on_the_disk(path, tmp_path / "begun") == {operation.id: "running"}
    work.go_on.set()
    following = operation.follow()
    assert await anext(following) == LEFT
    assert on_the_disk(path, tmp_path / "ended") == {operation.id: "done"}, "before anybody was told"


async def test_a_restart_knows_those_that_ended_and_how(start: MakeOperations) -> None:
    before = await start()
    works = [Held(), Held(BUSY)]
    both = [before.begin("leave", "archive", "anna", work) for work in works]
    for work, operation in zip(works, both, strict=True):
        work.go_on.set()
        await ended(operation)
    views = before.list()
    after = await start()
    assert after.list() == views
    assert [view.state for view in views] == ["failed", "done"], "the newest first"
    assert await told(after, both[0].id) == [{"event": "done", "mesh": "archive"}]
    assert await told(after, both[1].id) == [{"event": "error", "problem": BUSY.problem()}]
    assert after.unexplained == []


async def test_many_at_once_share_a_transaction(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = operations._store.write

    def counted(changed: Mapping[str, Record | None], everything: Iterable[Record]) -> None:
        sizes.append(len(changed))
        write(changed, everything)

    monkeypatch.setattr(operations._store, "write", counted)
    works = [Held() for _ in range(100)]
    begun = [operations.begin("pin", f"{n}", "anna", work) for n, work in enumerate(works)]
    await asyncio.gather(*(work.begun.wait() for work in works))
    assert sum(sizes) == len(begun)
    assert len(sizes) < 5


async def test_a_disk_that_takes_no_record_holds_up_nothing_and_gets_it_later(
    operations: Operations, path: Path, tmp_path: Path
) -> None:
    path.mkdir()
    first = await _one(operations)
    path.rmdir()
    second = await _one(operations)
    assert on_the_disk(path, tmp_path / "later") == {first: "done", second: "done"}


@pytest.mark.parametrize(
    "refusal",
    [MeshError(Code.DISK_FLOOR, "cannot record it", "there is no room"), OSError(errno.EIO, "I/O error")],
    ids=["full", "dead"],
)
async def test_what_a_disk_did_not_take_is_written_with_the_next_one(
    operations: Operations,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
) -> None:
    def full(*_: object) -> None:
        raise refusal

    await _one(operations)
    with monkeypatch.context() as patch:
        patch.setattr(operations._store, "write", full)
        untold = await _one(operations)
    assert untold not in on_the_disk(path, tmp_path / "full")
    await _one(operations)
    assert on_the_disk(path, tmp_path / "later")[untold] == "done"


async def test_a_disk_that_does_not_answer_holds_up_nothing(
    operations: Operations, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    write = operations._store.write

    def hangs(changed: Mapping[str, Record | None], everything: Iterable[Record]) -> None:
        assert answers.wait(30)
        write(changed, everything)

    monkeypatch.setattr(operations._store, "write", hangs)
    monkeypatch.setattr(registry, "WRITE_S", 0.01)
    first, second = await _one(operations), await _one(operations)
    assert [o.state for o in operations.list()] == ["done", "done"]
    answers.set()
    await asyncio.gather(*operations._writes)
    assert on_the_disk(path, tmp_path / "later") == {first: "done", second: "done"}


async def test_a_damaged_record_is_no_reason_not_to_start(start: MakeOperations, path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)
    operations = await start()
    assert operations.list() == []
    work = Held()
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    work.go_on.set()
    await ended(operation)
    assert [o.id for o in (await start()).list()] == [operation.id]


# -- whose caller goes away ----------------------------------------------------------------------------------------


async def test_it_goes_on_without_who_began_it(operations: Operations) -> None:
    work = Held()
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    operation.caller_gone()
    work.go_on.set()
    assert await ended(operation) == [LEFT]


async def test_one_that_is_tied_to_its_caller_is_undone_when_that_one_goes(
    operations: Operations, path: Path, tmp_path: Path
) -> None:
    work = Held()
    operation = operations.begin("join", "archive", "anna", work, tied=True)
    await work.begun.wait()
    operation.caller_gone()
    [last] = await ended(operation)
    assert work.undone
    assert problem(last).code is Code.OPERATION_INTERRUPTED
    assert "whoever began it went away" in problem(last).detail
    assert operations.get(operation.id).state == "interrupted"
    assert operations.unexplained == [operation.id]
    assert on_the_disk(path, tmp_path / "now") == {operation.id: "running"}, "the next start explains it, too"


async def test_one_that_was_untied_goes_on(operations: Operations) -> None:
    work = Held()
    operation = operations.begin("leave", "archive", "anna", work, tied=True)
    await work.begun.wait()
    operation.untie()
    operation.caller_gone()
    work.go_on.set()
    assert await ended(operation) == [LEFT]


# -- the end of meshd, and of a node ---------------------------------------------------------------------------------


async def test_a_stop_ends_what_runs_and_says_so(operations: Operations, path: Path, tmp_path: Path) -> None:
    work = Held()
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    await operations.stop()
    assert work.undone
    [last] = await ended(operation)
    assert (problem(last).code, problem(last).detail) == (Code.NOT_READY, "meshd is stopping")
    assert on_the_disk(path, tmp_path / "now") == {operation.id: "running"}


async def test_while_meshd_stops_nothing_begins(operations: Operations) -> None:
    await operations.stop()
    with pytest.raises(MeshError) as caught:
        operations.begin("pin", "minutes.pdf", "anna", Held())
    assert caught.value.code is Code.NOT_READY
    await operations.open()
    work = Held()
    operation = operations.begin("pin", "minutes.pdf", "anna", work)
    work.go_on.set()
    assert await ended(operation) == [LEFT]


async def test_a_leave_goes_on_until_the_next_node_answers_and_nothing_else_of_the_mesh_is_told(
    start: MakeOperations, path: Path
) -> None:
    operations = await start()
    other, pinning, leaving = Held(), Held(), Held()
    old = operations.begin("restore", "old.pdf", "anna", other)
    other.go_on.set()
    await ended(old)
    pin = operations.begin("pin", "minutes.pdf", "anna", pinning)
    leave = operations.begin("leave", "archive", "anna", leaving)
    await leaving.begun.wait()
    await pinning.begun.wait()
    await operations.stop(sparing=("leave",))
    assert (pinning.undone, leaving.undone) == (True, False)
    operations.release()
    path.unlink()
    leaving.go_on.set()
    assert await ended(leave) == [LEFT]
    assert [o.id for o in operations.list()] == [leave.id]
    after = await start()
    assert [(o.id, o.state) for o in after.list()] == [(leave.id, "done")]
    assert after.unexplained == []
    for gone in (old, pin):
        with pytest.raises(MeshError):
            after.get(gone.id)


# -- after a stop or a crash -----------------------------------------------------------------------------------------


async def test_what_ran_is_interrupted_and_says_at_each_start_that_it_is_not_explained_yet(
    start: MakeOperations,
) -> None:
    before = await start()
    work = Held(says=(ENTRY,))
    operation = before.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    for _ in range(2):
        after = await start()
        view = after.get(operation.id)
        assert (view.state, view.cid, view.subject) == ("interrupted", "bafyentry", "minutes.pdf")
        assert view.error is not None
        assert view.error["code"] == "operation-interrupted"
        assert "is looked at once this node serves" in view.error["detail"]
        assert after.unexplained == [operation.id]
        [last] = await told(after, operation.id)
        assert last["problem"] == view.error


async def test_what_became_of_it_is_said_once_and_for_good(start: MakeOperations) -> None:
    before = await start()
    work = Held()
    operation = before.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    after = await start()
    await after.explain(operation.id, "it is kept, with 1 of 3 copies", "meshctl ls", settled=False)
    assert after.unexplained == [operation.id]
    await after.explain(operation.id, "it is kept, with all its 3 copies", "meshctl ls", settled=True)
    await after.explain(operation.id, "something else", "", settled=True)
    for operations in (after, await start()):
        error = operations.get(operation.id).error
        assert error is not None
        assert error["detail"] == "it is kept, with all its 3 copies"
        assert operations.get(operation.id).state == "interrupted"
        assert operations.unexplained == []


async def test_what_is_not_explained_for_good_is_looked_at_again_after_the_next_start(
    start: MakeOperations,
) -> None:
    before = await start()
    work = Held()
    operation = before.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    after = await start()
    await after.explain(operation.id, "it is kept, with 1 of 3 copies", "meshctl ls", settled=False)
    assert (await start()).unexplained == [operation.id]


# -- what goes -------------------------------------------------------------------------------------------------------


async def _one(operations: Operations, verb: str = "leave") -> str:
    work = Held()
    operation = operations.begin(verb, "archive", "anna", work)
    work.go_on.set()
    await ended(operation)
    return operation.id


async def test_those_that_ended_long_ago_go_and_those_that_run_stay(
    start: MakeOperations, clock: Clock
) -> None:
    operations = await start()
    work = Held()
    running = operations.begin("pin", "minutes.pdf", "anna", work)
    await _one(operations)
    clock.seconds += registry.KEPT_S + 1
    new = await _one(operations)
    assert [o.id for o in operations.list()] == [new, running.id]
    assert [o.id for o in (await start()).list()] == [new, running.id]


async def test_the_oldest_that_ended_go_where_there_are_too_many(
    start: MakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "KEPT_MOST", 4)
    operations = await start()
    work = Held()
    running = operations.begin("pin", "minutes.pdf", "anna", work)
    await work.begun.wait()
    ids = [await _one(operations) for _ in range(6)]
    assert [o.id for o in operations.list()] == [*reversed(ids[-3:]), running.id]
    assert [o.id for o in (await start()).list()] == [*reversed(ids[-3:]), running.id]


async def test_of_very_many_that_run_the_newest_are_listed(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LISTED_MOST", 2)
    ids = [operations.begin("pin", "minutes.pdf", "anna", Held()).id for _ in range(5)]
    assert [o.id for o in operations.list()] == [ids[4], ids[3]]
    assert operations.get(ids[0]).state == "running"


async def test_of_the_oldest_only_the_last_event_is_kept(
    operations: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "LOGS_MOST", 1)
    ids = []
    for _ in range(3):
        work = Held(says=(ENTRY,))
        operation = operations.begin("pin", "minutes.pdf", "anna", work)
        work.go_on.set()
        await ended(operation)
        ids.append(operation.id)
    said = {id_: [event["event"] for event in await told(operations, id_)] for id_ in ids}
    assert said == {ids[0]: ["done"], ids[1]: ["entry", "done"], ids[2]: ["entry", "done"]}


async def test_a_name_of_any_length_is_cut_to_what_can_be_shown(operations: Operations) -> None:
    work = Held()
    operation = operations.begin("pin", "x" * 100_000, "anna", work)
    assert len(operations.get(operation.id).subject) == registry.SUBJECT_MOST


async def test_an_id_that_there_is_none_of(operations: Operations) -> None:
    for ask in (operations.get, operations.follow):
        with pytest.raises(MeshError) as caught:
            ask("nonsense")
        assert caught.value.code is Code.NOT_FOUND
        assert "meshctl operations" in caught.value.hint
    assert json.dumps([o.model_dump() for o in operations.list()]) == "[]"
