import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.passive_health import (
    Failure,
    Feedback,
    HealthChange,
    HealthOptions,
    PassiveHealth,
    Served,
    Transition,
    read_feedback,
)

A, B, C = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3))
PINNED = Endpoint("10.0.0.9:8000", dynamo_instance_id=9)
POOL = (A, B, C, PINNED)


class TestFeedback:
    """What a response says of its endpoints."""

    def read(self, destination, status, served, *, pinned=False):
        return read_feedback(Destination(destination), status, served, POOL, pinned=pinned)

    @pytest.mark.parametrize("status", [200, 400, 404, 429])
    def test_who_was_chosen_and_served_works(self, status):
        feedback = self.read((A, B), status, A.address)
        assert (feedback.served, feedback.failed, feedback.serving) == (Served.CHOSEN, (), A)

    @pytest.mark.parametrize("status", [502, 503])
    def test_who_answers_that_it_cannot_serve_has_failed(self, status):
        feedback = self.read((A,), status, A.address)
        assert feedback.failed == ((A, Failure.UNAVAILABLE),)
        assert feedback.serving is None

    @pytest.mark.parametrize("status", [500, 0])
    def test_other_failures_may_be_the_requests_own(self, status):
        assert self.read((A,), status, A.address) == Feedback(Served.CHOSEN)

    def test_a_504_is_a_timeout_of_whoever_answered(self):
        assert self.read((A,), 504, A.address) == Feedback(Served.CHOSEN, timed_out=A)
        assert self.read((A, B), 504, B.address).timed_out == B
        assert self.read((A,), 504, None).timed_out == A
        assert self.read((A,), 504, C.address).timed_out is None

    @pytest.mark.parametrize("status", [400, 404])
    def test_a_pinned_request_that_is_refused_is_a_doubt_and_no_proof(self, status):
        feedback = self.read((PINNED,), status, PINNED.address, pinned=True)
        assert feedback == Feedback(Served.CHOSEN, doubted=PINNED)

    def test_a_pinned_request_that_is_served_or_throttled_proves_that_it_works(self):
        for status in (200, 422, 429):
            assert self.read((PINNED,), status, PINNED.address, pinned=True).serving is PINNED

    def test_a_pin_without_an_instance_is_not_doubted(self):
        feedback = self.read((A,), 400, A.address, pinned=True)
        assert (feedback.doubted, feedback.serving) == (None, A)

    @pytest.mark.parametrize("status", [400, 504])
    def test_who_forwarded_another_workers_request_is_not_doubted(self, status):
        feedback = self.read((PINNED, B), status, B.address, pinned=True)
        assert (feedback.timed_out, feedback.doubted, feedback.serving) == (None, None, None)

    def test_those_before_the_one_that_served_have_failed(self):
        feedback = self.read((A, B, C), 200, C.address)
        assert feedback.served is Served.FALLBACK
        assert feedback.failed == ((A, Failure.BYPASSED), (B, Failure.BYPASSED))
        assert feedback.serving is C

    def test_a_last_resort_that_cannot_serve_has_failed_too(self):
        assert self.read((A, B), 503, B.address).failed == ((A, Failure.BYPASSED), (B, Failure.UNAVAILABLE))

    def test_all_of_the_destination_failed_if_another_of_the_pool_served(self):
        feedback = self.read((A, B), 200, C.address)
        assert (feedback.served, feedback.serving) == (Served.OTHER, None)
        assert feedback.failed == ((A, Failure.BYPASSED), (B, Failure.BYPASSED))

    def test_who_forwarded_another_workers_request_is_not_blamed(self):
        feedback = self.read((PINNED,), 503, A.address, pinned=True)
        assert feedback.failed == ((PINNED, Failure.BYPASSED),)

    @pytest.mark.parametrize("served", ["10.9.9.9:8000", "model-server.svc:8000", "", 7.0, [A.address]])
    def test_a_name_that_we_do_not_know_tells_nothing_of_the_others(self, served):
        feedback = self.read((A, B), 200, served)
        assert (feedback.served, feedback.failed, feedback.serving) == (Served.UNKNOWN, (), A)

    def test_without_a_report_the_first_is_held_to_have_answered(self):
        assert self.read((A, B), 503, None).failed == ((A, Failure.UNAVAILABLE),)
        assert self.read((A, B), 200, None).served is Served.UNREPORTED


@pytest.fixture
def changes():
    return []


@pytest.fixture
def health(changes):
    return PassiveHealth(HealthOptions(base_seconds=1.0, max_seconds=4.0), changes.append)


class TestSettingAside:
    def test_the_first_failure_sets_an_endpoint_aside_and_is_reported_once(self, health, changes):
        for _ in range(3):
            health.failed(A, Failure.UNAVAILABLE, 10.0)
        assert health.usable((A, B)) == (B,)
        assert changes == [HealthChange(A.address, Transition.SET_ASIDE, Failure.UNAVAILABLE, 1.0)]
        assert (health.set_aside, health.down) == (1, 0)

    def test_as_many_failures_in_a_row_as_are_asked_for(self):
        health = PassiveHealth(HealthOptions(failures=3))
        for _ in range(2):
            health.failed(A, Failure.UNAVAILABLE, 0.0)
        health.succeeded(A)
        for _ in range(2):
            health.failed(A, Failure.UNAVAILABLE, 0.0)
        assert health.usable((A, B)) == (A, B)
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        assert health.usable((A, B)) == (B,)

    def test_suspicion_never_empties_the_pool(self, health):
        for endpoint in (A, B):
            health.failed(endpoint, Failure.UNAVAILABLE, 0.0)
        assert health.usable((A, B)) == (A, B)

    def test_knowledge_does(self, health):
        for endpoint in (A, B):
            health.failed(endpoint, Failure.UNAVAILABLE, 0.0)
        health.due(1.0, limit=9)
        health.probed(A, alive=False, now=1.0)
        assert health.usable((A, B)) == (B,)
        assert health.down == 1
        health.probed(B, alive=False, now=1.0)
        assert health.usable((A, B)) == ()

    def test_a_worker_that_comes_back_under_a_new_instance_has_no_past(self, health):
        health.failed(PINNED, Failure.UNAVAILABLE, 0.0)
        reborn = Endpoint(PINNED.address, dynamo_instance_id=10)
        assert health.usable((A, reborn)) == (A, reborn)
        health.keep_only((A, reborn))
        assert health.set_aside == 0

    def test_an_old_answer_of_one_that_is_set_aside_changes_nothing(self, health):
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        health.succeeded(A)
        assert health.usable((A, B)) == (B,)


class TestTimeouts:
    def test_two_in_a_row_set_it_aside(self, health, changes):
        health.timed_out(A, 0.0)
        assert health.usable((A, B)) == (A, B)
        health.timed_out(A, 0.1)
        assert health.usable((A, B)) == (B,)
        assert changes == [HealthChange(A.address, Transition.SET_ASIDE, Failure.TIMED_OUT, 1.0)]

    def test_as_many_in_a_row_as_are_asked_for(self):
        health = PassiveHealth(HealthOptions(timeouts=3))
        for _ in range(2):
            health.timed_out(A, 0.0)
        assert health.set_aside == 0
        health.timed_out(A, 0.0)
        assert health.set_aside == 1

    def test_those_among_served_requests_change_nothing(self, health, changes):
        for _ in range(9):
            health.timed_out(A, 0.0)
            health.succeeded(A)
        assert health.usable((A, B)) == (A, B)
        assert changes == []

    def test_they_and_other_failures_are_counted_apart(self):
        health = PassiveHealth(HealthOptions(failures=2, timeouts=2))
        health.timed_out(A, 0.0)
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        assert health.set_aside == 0

    def test_one_alone_is_a_doubt(self, health):
        health.timed_out(A, 0.0)
        assert health.due(0.0, limit=9) == (A,)

    def test_after_its_return_the_next_alone_sets_it_aside_for_longer_until_it_serves(self, health, changes):
        for _ in range(2):
            health.timed_out(A, 0.0)
        for now, seconds in ((1.0, 2.0), (3.0, 4.0), (7.0, 4.0)):
            assert health.due(now, limit=9) == (A,)
            health.probed(A, alive=True, now=now)
            health.timed_out(A, now)
            assert (changes[-1].failure, changes[-1].seconds) == (Failure.TIMED_OUT, seconds)
        assert health.due(11.0, limit=9) == (A,)
        health.probed(A, alive=True, now=11.0)
        health.succeeded(A)
        health.timed_out(A, 11.0)
        assert health.usable((A, B)) == (A, B)

    def test_those_of_requests_that_were_on_their_way_when_it_was_set_aside_do_not_count(
        self, health, changes
    ):
        for _ in range(9):
            health.timed_out(A, 0.0)
        assert len(changes) == 1
        assert health.due(1.0, limit=9) == (A,)


class TestDoubts:
    """An endpoint that is doubted is asked, and goes on serving meanwhile."""

    def test_requests_go_on_while_it_is_asked(self, health, changes):
        health.doubted(A, 0.0)
        assert health.usable((A, B)) == (A, B)
        assert health.due(0.0, limit=9) == (A,)
        assert health.usable((A, B)) == (A, B)
        assert changes == []

    def test_an_answer_clears_it(self, health, changes):
        health.doubted(A, 0.0)
        health.due(0.0, limit=9)
        health.probed(A, alive=True, now=0.1)
        assert health.due(99.0, limit=9) == ()
        assert changes == []

    def test_none_sets_it_aside_at_once_as_one_that_is_down(self, changes):
        health = PassiveHealth(HealthOptions(failures=5), changes.append)
        health.doubted(A, 0.0)
        health.due(0.0, limit=9)
        health.probed(A, alive=False, now=0.1)
        assert changes == [HealthChange(A.address, Transition.SET_ASIDE, Failure.PROBE, 1.0)]
        assert (health.set_aside, health.down) == (1, 1)
        assert health.usable((A,)) == ()
        assert health.due(1.1, limit=9) == (A,)
        health.probed(A, alive=True, now=1.2)
        assert health.usable((A,)) == (A,)

    def test_however_many_there_are_it_is_asked_once_in_the_time_of_setting_aside(self, health):
        asked = 0
        for tick in range(31):
            for _ in range(50):
                health.doubted(A, tick / 10)
            for endpoint in health.due(tick / 10, limit=9):
                asked += 1
                health.probed(endpoint, alive=True, now=tick / 10)
        assert asked == 4

    def test_a_success_in_between_does_not_let_it_be_asked_sooner(self, health):
        health.doubted(A, 0.0)
        health.due(0.0, limit=9)
        health.probed(A, alive=True, now=0.0)
        health.succeeded(A)
        health.doubted(A, 0.5)
        assert health.due(0.5, limit=9) == ()

    def test_one_that_is_set_aside_is_not_asked_for_its_sake(self, health):
        health.doubted(A, 0.0)
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        health.doubted(A, 0.1)
        assert health.due(0.9, limit=9) == ()

    def test_an_answer_to_a_question_from_before_it_failed_does_not_bring_it_back(self, health):
        health.doubted(A, 0.0)
        assert health.due(0.0, limit=9) == (A,)
        health.failed(A, Failure.UNAVAILABLE, 0.1)
        assert health.due(5.0, limit=9) == (), "one question at a time"
        health.probed(A, alive=True, now=5.0)
        assert health.usable((A, B)) == (B,)
        assert health.due(5.0, limit=9) == (A,)
        health.probed(A, alive=True, now=5.0)
        assert health.usable((A, B)) == (A, B)

    def test_nor_does_it_count_again_against_one_that_failed_meanwhile(self, health):
        health.doubted(A, 0.0)
        health.due(0.0, limit=9)
        health.failed(A, Failure.UNAVAILABLE, 0.1)
        health.probed(A, alive=False, now=0.2)
        assert health.down == 0
        assert health.due(1.1, limit=9) == (A,), "as long as for its one failure"

    def test_whoever_was_set_aside_is_asked_first(self, health):
        health.doubted(A, 0.0)
        health.failed(B, Failure.UNAVAILABLE, 0.0)
        assert health.due(1.0, limit=1) == (B,)
        assert health.due(1.0, limit=1) == (A,)

    def test_who_leaves_the_pool_is_forgotten(self, health, changes):
        health.doubted(A, 0.0)
        health.keep_only((B,))
        assert health.due(9.0, limit=9) == ()
        health.doubted(A, 9.0)
        health.due(9.0, limit=9)
        health.keep_only((B,))
        health.probed(A, alive=False, now=9.0)
        assert (health.set_aside, changes) == (0, [])


class TestReturning:
    def test_it_is_due_when_its_time_is_over_and_only_once(self, health):
        health.failed(A, Failure.UNAVAILABLE, 10.0)
        assert health.due(10.9, limit=9) == ()
        assert health.due(11.0, limit=0) == ()
        assert health.due(11.0, limit=9) == (A,)
        assert health.due(11.0, limit=9) == ()
        assert health.usable((A, B)) == (B,), "no client is the probe"

    def test_a_probe_that_answers_brings_it_back(self, health, changes):
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        health.due(1.0, limit=9)
        health.probed(A, alive=True, now=1.0)
        assert health.usable((A, B)) == (A, B)
        assert [change.transition for change in changes] == [Transition.SET_ASIDE, Transition.READMITTED]

    def test_its_time_doubles_up_to_a_limit_until_it_serves(self, health, changes):
        now = 0.0
        health.failed(A, Failure.UNAVAILABLE, now)
        for wait in (1.0, 2.0, 4.0, 4.0):
            assert health.due(now + wait - 0.01, limit=9) == ()
            now += wait
            assert health.due(now, limit=9) == (A,)
            health.probed(A, alive=False, now=now)
        now += 4.0
        health.due(now, limit=9)
        health.probed(A, alive=True, now=now)
        health.failed(A, Failure.UNAVAILABLE, now)
        assert changes[-1].seconds == 4.0, "readmitted is not yet proved"
        health.due(now + 4, limit=9)
        health.probed(A, alive=True, now=now)
        health.succeeded(A)
        health.failed(A, Failure.UNAVAILABLE, now)
        assert changes[-1].seconds == 1.0

    def test_a_probe_of_one_that_is_gone_meanwhile_is_forgotten(self, health):
        health.failed(A, Failure.UNAVAILABLE, 0.0)
        health.due(1.0, limit=9)
        health.keep_only((B,))
        health.probed(A, alive=False, now=1.0)
        assert health.set_aside == 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(POOL),
        st.sampled_from(("fail", "serve", "time out", "doubt", "alive", "dead", "tick", "leave")),
    ),
    max_size=60,
)


@given(EVENTS)
def test_candidates_are_never_invented_reordered_or_emptied_by_suspicion(events):
    health = PassiveHealth(HealthOptions())
    now = 0.0
    asking = set()
    for endpoint, event in events:
        now += 0.5
        if event == "fail":
            health.failed(endpoint, Failure.UNAVAILABLE, now)
        elif event == "serve":
            health.succeeded(endpoint)
        elif event == "time out":
            health.timed_out(endpoint, now)
        elif event == "doubt":
            before = health.usable(POOL)
            health.doubted(endpoint, now)
            assert health.usable(POOL) == before
        elif event == "leave":
            health.keep_only([each for each in POOL if each != endpoint])
            asking.discard(endpoint)
        elif event == "tick":
            due = health.due(now, limit=2)
            assert len(due) <= 2
            assert asking.isdisjoint(due), "nobody is probed twice at a time"
            asking.update(due)
        else:
            asking.discard(endpoint)
            health.probed(endpoint, alive=event == "alive", now=now)
        usable = health.usable(POOL)
        assert [each for each in POOL if each in usable] == list(usable)
        assert usable or health.down == len(POOL)
        assert health.down <= health.set_aside <= len(POOL)
