"""What a trace says of routing."""

import pytest

from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.response_body import Usage
from epp_adapter.routing.strategy import Fallback, StrategyFault
from epp_adapter.spans import ExchangeSpans
from extproc.events import Termination
from extproc.tracing import RecordingTracing, Stretch

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def told_of(record: ExchangeRecord) -> tuple[str, Stretch, tuple[Stretch, ...]]:
    tracing = RecordingTracing()
    ExchangeSpans(tracing, lambda: 9.0)(record)
    (told,) = tracing.told
    return told


def test_a_routed_exchange_lasts_to_its_end_and_its_pick_as_long_as_it_took():
    record = ExchangeRecord(
        Outcome.ROUTED,
        Termination.ENDED,
        model="qwen3",
        strategy="internal",
        destination="10.0.0.1:8000",
        fallbacks=(Fallback("dynamo", StrategyFault.DEADLINE),),
        token_count=70,
        cached_tokens=48,
        pick_seconds=0.25,
        response_status=200,
        usage=Usage(70, 12),
        traceparent=PARENT,
        opened=5.0,
        pick_began=6.0,
    )
    traceparent, whole, (pick,) = told_of(record)
    assert traceparent == PARENT
    assert (whole.name, whole.began, whole.ended, whole.failed) == ("route", 5.0, 9.0, False)
    assert whole.attributes == {
        "epp_adapter.outcome": "routed",
        "epp_adapter.termination": "ended",
        "epp_adapter.priority": 0,
        "epp_adapter.destination": "10.0.0.1:8000",
        "gen_ai.request.model": "qwen3",
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 12,
        "http.response.status_code": 200,
    }
    assert (pick.name, pick.began, pick.ended, pick.failed) == ("pick", 6.0, 6.25, False)
    assert pick.attributes == {
        "epp_adapter.strategy": "internal",
        "epp_adapter.cached_tokens": 48,
        "epp_adapter.fallback.dynamo": "deadline",
    }


def test_where_nobody_was_asked_to_pick_there_is_no_pick():
    _, whole, parts = told_of(ExchangeRecord(Outcome.REFUSED_UNKNOWN_STRATEGY, Termination.REJECTED))
    assert (whole.failed, parts) == (False, ())


def test_a_pick_that_found_nobody_has_failed():
    record = ExchangeRecord(Outcome.REFUSED_DEADLINE, Termination.REJECTED, pick_seconds=0.2)
    _, whole, (pick,) = told_of(record)
    assert (whole.failed, pick.failed) == (True, True)


@pytest.mark.parametrize(("status", "failed"), [(200, False), (404, False), (500, True), (503, True)])
def test_a_server_error_of_the_model_server_is_a_failure(status, failed):
    record = ExchangeRecord(Outcome.ROUTED, Termination.ENDED, response_status=status)
    assert told_of(record)[1].failed is failed
