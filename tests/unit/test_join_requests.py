"""The requests to join that a member keeps: how many, for how long, and what a person may do with them."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from meshd.errors import Code, MeshError
from meshd.mesh.join_requests import JoinRequest, PendingRequests
from meshd.wire import Joiner

CODE = "1234 5678 9012"


class Member:
    """The requests of one member, with a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.requests = PendingRequests(lambda: self.now)

    def commit(self, key: str = "barn", name: str = "", source: str = "") -> JoinRequest:
        joiner = Joiner(
            name=name or key,
            certificate="",
            address="10.0.0.2",
            peer_port=1,
            swarm_port=1,
            cluster_port=1,
            kubo_id="",
            cluster_id="",
        )
        return self.requests.commit(
            source=source or f"from {key}",
            fingerprint=key,
            joiner=joiner,
            mesh="archive",
            commitment="",
            nonce="",
        )

    def ask(self, key: str = "barn", name: str = "", source: str = "", code: str = CODE) -> JoinRequest:
        """Until a person sees it."""
        request = self.commit(key, name, source)
        self.requests.show(request, code)
        return request

    def waiting(self) -> list[str]:
        return [request.fingerprint for request in self.requests.waiting()]


@pytest.fixture
def member() -> Member:
    return Member()


def _refused(code: Code, what: object, *given: object) -> MeshError:
    with pytest.raises(MeshError) as caught:
        what(*given)  # type: ignore[operator]
    assert caught.value.code is code
    assert caught.value.title.startswith("cannot ")
    assert "meshctl" in caught.value.hint
    return caught.value


def _attempt(what: Callable[[], object]) -> Code | None:
    """None where it went well, else why not."""
    try:
        what()
    except MeshError as exc:
        return exc.code
    return None


# -- what people see ---------------------------------------------------------------------------------------------------


def test_people_see_only_nodes_that_have_proved_their_key(member: Member) -> None:
    request = member.commit()
    assert member.waiting() == []
    member.requests.show(request, CODE)
    assert member.waiting() == ["barn"]


def test_the_oldest_is_first(member: Member) -> None:
    second = member.commit("second")
    member.ask("first")
    member.now += 1
    member.requests.show(second, CODE)
    assert member.waiting() == ["first", "second"]


def test_the_id_that_fetches_the_answer_is_not_the_one_that_people_see(member: Member) -> None:
    request = member.ask()
    assert len(request.id) == 64
    assert len(request.handle) == 6
    assert request.handle not in request.id[:6]
    assert request.id not in repr(request) + str(request)


# -- for how long ------------------------------------------------------------------------------------------------------


def test_a_commitment_lasts_a_minute(member: Member) -> None:
    request = member.commit()
    member.now += 59.9
    assert member.requests.find(request.id) is request
    member.now += 0.1
    _refused(Code.NOT_FOUND, member.requests.find, request.id)


def test_a_request_is_there_while_its_node_looks(member: Member) -> None:
    request = member.ask()
    for _ in range(10):
        member.now += 29.9
        member.requests.find(request.id)
    member.now += 29.9
    assert member.waiting() == ["barn"]
    member.now += 0.1
    assert member.waiting() == []
    _refused(Code.NOT_FOUND, member.requests.find, request.id)
    _refused(Code.NOT_FOUND, member.requests.pick, "barn")


def test_a_request_lasts_an_hour_at_most(member: Member) -> None:
    request = member.ask()
    until = member.now + 3600
    while member.now + 20 < until:
        member.now += 20
        member.requests.find(request.id)
    member.now = until
    assert member.waiting() == []


@pytest.mark.parametrize("answer", ["admitted", "denied"])
def test_an_answer_can_be_fetched_again_for_ten_minutes(member: Member, answer: str) -> None:
    request = member.ask()
    member.requests.decide(request, answer)  # type: ignore[arg-type]
    assert member.waiting() == []
    member.now += 599.9
    assert member.requests.find(request.id).state == answer
    member.now += 0.1
    _refused(Code.NOT_FOUND, member.requests.find, request.id)


def test_what_is_being_written_does_not_end_meanwhile(member: Member) -> None:
    request = member.ask()
    request.state = "admitting"
    member.now += 10_000
    member.requests.withdraw(request.id)
    member.requests.drop(request)
    member.ask()
    assert member.requests.find(request.id) is request


def test_a_node_that_gave_up_is_gone(member: Member) -> None:
    request = member.ask()
    member.requests.withdraw(request.id)
    member.requests.withdraw(request.id)
    member.requests.withdraw("unknown")
    assert member.waiting() == []


def test_requests_of_a_mesh_that_was_left_are_gone(member: Member) -> None:
    member.ask()
    member.requests.keep_only("archive")
    assert member.waiting() == ["barn"]
    member.requests.keep_only("")
    assert member.waiting() == []


# -- how many ----------------------------------------------------------------------------------------------------------


def test_one_address_has_three_open_requests(member: Member) -> None:
    member.commit("a", source="x")
    member.ask("b", source="x")
    third = member.ask("c", source="x")
    assert "address" in _refused(Code.BUSY, member.commit, "d", "", "x").detail
    member.commit("d", source="y")
    member.requests.withdraw(third.id)
    member.commit("d", source="x")


def test_answered_requests_are_not_counted(member: Member) -> None:
    for key in "abc":
        member.requests.decide(member.ask(key, source="x"), "admitted")
    member.ask("d", source="x")


def test_there_are_64_commitments_at_most(member: Member) -> None:
    for number in range(64):
        member.commit(f"key {number}")
    _refused(Code.BUSY, member.commit, "one more")
    member.now += 60
    member.commit("one more")


def test_people_see_16_at_most(member: Member) -> None:
    late = member.commit("late")
    shown = [member.ask(f"key {number}") for number in range(16)]
    _refused(Code.BUSY, member.requests.show, late, CODE)
    _refused(Code.BUSY, member.commit, "one more")
    member.ask("key 3", source="elsewhere")  # the same key again is no one more
    assert len(member.waiting()) == 16
    shown[0].state = "admitting"  # it still counts
    _refused(Code.BUSY, member.requests.show, late, CODE)
    member.requests.decide(shown[0], "admitted")
    member.requests.show(late, CODE)
    assert len(member.waiting()) == 16


def test_64_answers_are_remembered(member: Member) -> None:
    first, *others = [member.ask(f"key {number}") for number in range(16)]
    member.requests.decide(first, "admitted")
    for request in others:
        member.requests.decide(request, "admitted")
    for number in range(48):
        member.now += 0.01
        assert member.requests.find(first.id).state == "admitted"
        member.requests.decide(member.ask(f"later {number}"), "denied")
    member.requests.decide(member.ask("last"), "admitted")
    _refused(Code.NOT_FOUND, member.requests.find, first.id)
    assert member.requests.find(others[-1].id).state == "admitted"


def test_the_same_key_again_takes_the_place_of_its_older_request(member: Member) -> None:
    old = member.ask(code="1111 1111 1111")
    new = member.commit()
    assert member.waiting() == ["barn"]  # anybody can claim a key: the old one stays until it was proved
    assert member.requests.find(old.id) is old
    member.requests.show(new, CODE)
    assert [request.code for request in member.requests.waiting()] == [CODE]
    _refused(Code.NOT_FOUND, member.requests.find, old.id)


# -- what a person does ------------------------------------------------------------------------------------------------


def test_a_denied_key_may_ask_again_after_ten_minutes(member: Member) -> None:
    member.requests.decide(member.ask(), "denied")
    assert _refused(Code.DENIED, member.commit).detail == "a member denied this node"
    member.commit("another")
    member.now += 599.9
    _refused(Code.DENIED, member.commit)
    member.now += 0.1
    member.commit()


def test_a_denied_node_cannot_wipe_that_out(member: Member) -> None:
    request = member.ask()
    member.requests.decide(request, "denied")
    member.requests.withdraw(request.id)
    _refused(Code.DENIED, member.commit)


def test_a_request_is_named_by_its_id_or_its_node(member: Member) -> None:
    barn, shed = member.ask("barn"), member.ask("shed")
    for ref in ("barn", "BARN", f" {barn.handle} ", barn.handle.upper()):
        assert member.requests.pick(ref) is barn
    assert member.requests.pick(shed.handle) is shed
    for ref in ("", "bar", barn.id, barn.code):
        _refused(Code.NOT_FOUND, member.requests.pick, ref)


def test_two_of_one_name_are_told_apart_by_their_ids(member: Member) -> None:
    one, other = member.ask("a", name="barn"), member.ask("b", name="Barn")
    refusal = _refused(Code.BAD_REQUEST, member.requests.pick, "barn")
    assert one.handle in refusal.detail
    assert other.handle in refusal.detail
    assert member.requests.pick(other.handle) is other


def test_a_node_that_is_called_as_anothers_id_does_not_get_its_approval(member: Member) -> None:
    barn = member.ask("barn")
    member.ask("thief", name=barn.handle)
    assert member.requests.pick(barn.handle) is barn


def test_an_approval_whose_answer_was_lost_is_said_again(member: Member) -> None:
    request = member.ask()
    member.requests.decide(request, "admitted")
    _refused(Code.NOT_FOUND, member.requests.pick, "barn")
    assert member.requests.pick("barn", answered=True) is request
    again = member.ask("other", name="barn")
    assert member.requests.pick("barn", answered=True) is again


def test_commitments_and_denied_ones_cannot_be_approved(member: Member) -> None:
    member.commit("barn")
    member.requests.decide(member.ask("shed"), "denied")
    for name in ("barn", "shed"):
        with pytest.raises(MeshError):
            member.requests.pick(name, answered=True)


def test_the_third_wrong_code_ends_the_request(member: Member) -> None:
    request = member.ask()
    member.requests.check_code(request, "1234-5678-9012")
    for _ in range(2):
        refusal = _refused(Code.DENIED, member.requests.check_code, request, "1234 5678 9013")
        assert "that is not the code of this request" in refusal.detail
        assert CODE not in str(refusal.problem())
    assert member.waiting() == ["barn"]
    assert "ended" in _refused(Code.DENIED, member.requests.check_code, request, "").detail
    assert member.waiting() == []
    member.ask()


# -- whatever happens --------------------------------------------------------------------------------------------------

_KEYS = st.sampled_from([f"key {number}" for number in range(30)])
_SOURCES = st.sampled_from([f"10.0.0.{number}" for number in range(12)])
_PICK = st.integers(0, 1000)


class Crowd(RuleBasedStateMachine):
    """Strangers, and a person, who do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.member = Member()
        self.made: list[JoinRequest] = []
        self.denied: dict[str, float] = {}

    @rule(key=_KEYS, source=_SOURCES, times=st.integers(1, 20))
    def commit(self, key: str, source: str, times: int) -> None:
        for _ in range(times):
            refused = _attempt(lambda: self.made.append(self.member.commit(key, source=source)))
            assert refused in (None, Code.BUSY, Code.DENIED)
            assert (refused is Code.DENIED) == (self.denied.get(key, 0) > self.member.now)

    @rule(first=st.integers(0, 12), count=st.integers(1, 16))
    def many_at_once(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            key, source = f"key {number}", f"10.0.1.{number}"

            def ask(key: str = key, source: str = source) -> None:
                self.made.append(self.member.commit(key, source=source))
                self.member.requests.show(self.made[-1], CODE)

            assert _attempt(ask) in (None, Code.BUSY, Code.DENIED)

    @rule(which=_PICK)
    def show(self, which: int) -> None:
        committed = [one for one in self._there() if one.state == "committed"]
        if committed:
            request = committed[which % len(committed)]
            assert _attempt(lambda: self.member.requests.show(request, CODE)) in (None, Code.BUSY)

    @rule(which=_PICK)
    def look(self, which: int) -> None:
        if self.made:
            request = self.made[which % len(self.made)]
            there = request in self._there()
            assert _attempt(lambda: self.member.requests.find(request.id)) is (
                None if there else Code.NOT_FOUND
            )

    @rule(which=_PICK)
    def withdraw(self, which: int) -> None:
        if self.made:
            self.member.requests.withdraw(self.made[which % len(self.made)].id)

    @rule(which=_PICK, answer=st.sampled_from(["admitted", "denied"]))
    def decide(self, which: int, answer: str) -> None:
        waiting = self.member.requests.waiting()
        if waiting:
            request = self.member.requests.pick(waiting[which % len(waiting)].handle)
            self.member.requests.decide(request, answer)  # type: ignore[arg-type]
            if answer == "denied":
                self.denied[request.fingerprint] = self.member.now + 600

    @rule(which=_PICK)
    def wrong_code(self, which: int) -> None:
        waiting = self.member.requests.waiting()
        if waiting:
            request = waiting[which % len(waiting)]
            assert _attempt(lambda: self.member.requests.check_code(request, "0")) is Code.DENIED

    @rule(seconds=st.sampled_from([0.1, 5, 29, 31, 61, 599, 3600]))
    def time_goes_by(self, seconds: float) -> None:
        self.member.now += seconds

    def _there(self) -> list[JoinRequest]:
        self.member.requests.waiting()  # what has ended goes
        return list(self.member.requests._requests.values())

    @invariant()
    def the_bounds_hold(self) -> None:
        there = self._there()
        states = [one.state for one in there]
        assert states.count("committed") <= 64
        assert states.count("waiting") <= 16
        assert states.count("admitted") + states.count("denied") <= 64
        open_ = [one for one in there if one.state in ("committed", "waiting")]
        for source in {one.source for one in open_}:
            assert sum(one.source == source for one in open_) <= 3

    @invariant()
    def no_key_waits_twice_and_no_handle_is_given_twice(self) -> None:
        waiting = self.member.waiting()
        assert len(waiting) == len(set(waiting))
        handles = [one.handle for one in self._there()]
        assert len(handles) == len(set(handles))

    @invariant()
    def nothing_outlives_its_time(self) -> None:
        for one in self._there():
            assert one.state != "committed" or self.member.now < one.made + 60
            assert one.state != "waiting" or self.member.now < one.looked + 30
            assert one.state != "waiting" or self.member.now < one.revealed + 3600
            assert one.state not in ("admitted", "denied") or self.member.now < one.decided + 600
        assert all(self.member.now < until for until in self.member.requests._refused.values())


def test_whatever_strangers_do_there_are_few_and_not_for_long() -> None:
    run_state_machine_as_test(
        Crowd, settings=settings(max_examples=50, stateful_step_count=40, deadline=None)
    )
