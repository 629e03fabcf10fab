import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.doubts import Doubts
from epp_adapter.endpoints import Endpoint

A, B = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2))
POOL = (A, B)


@pytest.fixture
def doubts():
    return Doubts(1.0)


def ask(doubts, now, limit=9):
    """Ask whoever is to be asked, and have the answers at once."""
    asked = doubts.due(now, limit=limit)
    for endpoint in asked:
        assert doubts.answered(endpoint)
    return asked


def test_who_is_doubted_is_asked_at_once_and_once(doubts):
    doubts.doubt(A, 5.0)
    assert ask(doubts, 5.0) == (A,)
    assert ask(doubts, 99.0) == ()


def test_however_many_doubts_there_are_it_is_asked_once_in_a_time(doubts):
    asked = 0
    for tick in range(31):
        for _ in range(100):
            doubts.doubt(A, tick / 10)
        asked += len(ask(doubts, tick / 10))
    assert asked == 4


def test_a_doubt_that_comes_too_soon_is_asked_about_later(doubts):
    doubts.doubt(A, 0.0)
    ask(doubts, 0.0)
    doubts.doubt(A, 0.1)
    assert ask(doubts, 0.9) == ()
    assert ask(doubts, 1.0) == (A,)


def test_a_doubt_while_the_question_is_under_way_is_asked_about_after_its_answer(doubts):
    doubts.doubt(A, 0.0)
    assert doubts.due(0.0, limit=9) == (A,)
    doubts.doubt(A, 0.5)
    assert doubts.due(5.0, limit=9) == (), "one question at a time"
    assert A.identity in doubts.asking
    assert doubts.answered(A)
    assert ask(doubts, 5.0) == (A,)


@pytest.mark.parametrize(("limit", "asked"), [(-1, ()), (0, ()), (1, (A,)), (2, (A, B))])
def test_no_more_are_asked_than_may_be(doubts, limit, asked):
    doubts.doubt(A, 0.0)
    doubts.doubt(B, 0.0)
    assert ask(doubts, 0.0, limit) == asked


def test_a_question_that_is_not_needed_any_more_is_not_asked(doubts):
    doubts.doubt(A, 0.0)
    doubts.drop(A)
    doubts.drop(B)
    assert ask(doubts, 9.0) == ()


def test_an_answer_that_nobody_asked_for_is_none(doubts):
    doubts.doubt(A, 0.0)
    assert not doubts.answered(A)
    doubts.due(0.0, limit=9)
    doubts.keep_only((B,))
    assert not doubts.answered(A), "it has left the pool"


EVENTS = st.lists(
    st.tuples(st.sampled_from(POOL), st.sampled_from(("doubt", "drop", "due", "answered", "leave"))),
    max_size=80,
)


@given(EVENTS)
def test_questions_are_bounded_by_the_time_and_memory_by_the_pool(events):
    doubts = Doubts(1.0)
    now = 0.0
    last = {}
    for endpoint, event in events:
        now += 0.25
        if event == "doubt":
            doubts.doubt(endpoint, now)
        elif event == "drop":
            doubts.drop(endpoint)
        elif event == "answered":
            doubts.answered(endpoint)
        elif event == "leave":
            doubts.keep_only([each for each in POOL if each != endpoint])
            last.pop(endpoint, None)
        else:
            for asked in doubts.due(now, limit=2):
                assert now - last.get(asked, -1.0) >= 1.0
                last[asked] = now
        assert doubts.known <= len(POOL)
    for endpoint in POOL:
        doubts.answered(endpoint)
    ask(doubts, now + 1.0)
    ask(doubts, now + 2.0)
    assert doubts.known == 0, "whoever is not doubted any more takes no memory"
