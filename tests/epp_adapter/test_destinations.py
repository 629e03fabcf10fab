import pytest

from epp_adapter.destinations import destination_of, is_pinned
from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.strategy import PlainPick

A, B, C, D = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3, 4))
PINNED = Endpoint("10.0.0.9:8000", dynamo_instance_id=9)
AMONG = (A, B, C, D)


def pick(*endpoints, **options):
    return PlainPick("fake", Destination(endpoints), **options)


@pytest.mark.parametrize(
    ("more", "named"), [(0, (C,)), (1, (C, D)), (2, (C, D, A)), (3, (C, D, A, B)), (9, (C, D, A, B))]
)
def test_the_others_follow_in_turn_from_the_choice_on(more, named):
    assert destination_of(pick(C), AMONG, more=more).endpoints == named


def test_what_a_strategy_orders_itself_comes_first():
    assert destination_of(pick(D, B), AMONG, more=2).endpoints == (D, B, C)
    assert destination_of(pick(D, B), AMONG, more=0).endpoints == (D, B)


@pytest.mark.parametrize("pinned", [pick(PINNED, A), pick(A, B, request_headers={"x-dynamo-dp-rank": "1"})])
def test_a_pin_holds_for_one_endpoint_only(pinned):
    assert is_pinned(pinned)
    assert destination_of(pinned, (*AMONG, PINNED), more=3).endpoints == pinned.destination.endpoints[:1]


def test_who_needs_a_pin_is_nobodys_fallback():
    assert destination_of(pick(A), (A, PINNED, B), more=3).endpoints == (A, B)
