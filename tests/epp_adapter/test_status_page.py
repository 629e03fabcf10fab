"""The status page of the picker: endpoints with their load, and what was picked last."""

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.routing.load import EndpointLoad
from epp_adapter.status_page import RecentPicks, sections
from extproc.events import Termination

READY = Endpoint("10.0.0.1:8000", dynamo_instance_id=7)
ASIDE = Endpoint("10.0.0.2:8000")
GONE = Endpoint("10.0.0.3:8000", ready=False)


def routed(number: int) -> ExchangeRecord:
    return ExchangeRecord(
        Outcome.ROUTED, Termination.ENDED, destination=f"10.0.0.{number}:8000", strategy="dynamo",
        token_count=900, cached_tokens=64, pick_seconds=0.0004, response_status=200, total_seconds=1.5,
    )  # fmt: skip


def shown(picks=()):
    loads = [EndpointLoad(waiting=1, running=2, kv_utilization=0.5, updated_at=0.0), None, None]
    outcomes = {("routed", "dynamo"): 3.0}
    found = sections((READY, ASIDE, GONE), lambda each: each is ASIDE, loads, outcomes, picks)
    return {section.title: [list(map(str, row)) for row in section.rows] for section in found}


def test_an_endpoint_is_shown_with_what_is_known_of_it():
    assert shown()["Endpoints"] == [
        ["10.0.0.1:8000", "7", "ready", "1", "2", "50%"],
        ["10.0.0.2:8000", "-", "set aside", "-", "-", "-"],
        ["10.0.0.3:8000", "-", "not ready", "-", "-", "-"],
    ]


def test_requests_are_counted_by_outcome_and_strategy():
    assert shown()["Requests since the start"] == [["routed", "dynamo", "3"]]


def test_the_last_picks_are_kept_the_latest_first_and_a_bounded_number_of_them():
    recent = RecentPicks()
    for number in range(50):
        recent.exchange_closed(routed(number))
    recent.exchange_closed(ExchangeRecord(Outcome.REFUSED_NO_ENDPOINT, Termination.REJECTED))
    picks = shown(recent.last())["Last picks"]
    assert picks[0] == ["10.0.0.49:8000", "dynamo", "-", "900", "64", "0.40 ms", "200", "1.50 s"]
    assert len(picks) == 20
