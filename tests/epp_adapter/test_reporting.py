"""What an operator sees: metrics against a golden exposition, and the log lines."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from epp_adapter.discovery.static_file import ReloadOutcome
from epp_adapter.exchange import ExchangeRecord, Outcome
from epp_adapter.exchange_log import ExchangeLog
from epp_adapter.metrics import Metrics
from epp_adapter.records.finder import Finding, RecordSource, RecordState
from epp_adapter.records.tokenizer import CalloutFault
from epp_adapter.routing.strategy import Fallback, StrategyFault
from extproc.events import Termination
from extproc.log_settings import LogLevel, LogSettings
from extproc.token_metadata import RecordFault

GOLDEN = Path(__file__).parent / "golden" / "metrics.prom"

ROUTED = ExchangeRecord(
    outcome=Outcome.ROUTED,
    termination=Termination.ENDED,
    request_id="7b6c2a44-9f0e-4a35-8f4e-0d5b7c1f2a33",
    model="qwen3",
    strategy="dynamo",
    destination="10.0.0.1:8000",
    token_count=8000,
    cached_tokens=64,
    findings=(Finding(RecordSource.METADATA, RecordState.USED),),
    pick_seconds=0.0004,
    response_status=200,
    total_seconds=1.25,
)
REFUSED = ExchangeRecord(
    outcome=Outcome.REFUSED_NO_ENDPOINT,
    termination=Termination.REJECTED,
    findings=(
        Finding(RecordSource.METADATA, RecordFault.BAD_BASE64),
        Finding(RecordSource.CALLOUT, CalloutFault.UNAVAILABLE),
    ),
)


def test_metrics_match_the_golden_exposition():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch(lambda: 3, lambda: 2)
    metrics.exchange_closed(ROUTED)
    metrics.exchange_closed(REFUSED)
    metrics.exchange_closed(ExchangeRecord(Outcome.RESPONSE_ONLY, Termination.ENDED))
    for finding in ROUTED.findings + REFUSED.findings:
        metrics.looked_for_record(finding)
    metrics.fell_back(Fallback("dynamo", StrategyFault.NO_TOKEN_IDS))
    metrics.reloaded(ReloadOutcome.REFUSED)
    lines = generate_latest(registry).decode().splitlines()
    stable = [line for line in lines if "_created" not in line]
    assert stable == GOLDEN.read_text().splitlines()


def logged(*records, settings=LogSettings(), now=lambda: 1_000_000.5) -> list[dict]:  # noqa: B008  # frozen
    written = []
    log = ExchangeLog(written.append, settings, now)
    for record in records:
        log(record)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)
    return [json.loads(line) for line in written]


def test_an_exchange_is_one_json_line():
    (line,) = logged(ROUTED)
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "epp_adapter.exchange_log",
        "message": "exchange",
        "request_id": "7b6c2a44-9f0e-4a35-8f4e-0d5b7c1f2a33",
        "outcome": "routed",
        "termination": "ended",
        "model": "qwen3",
        "strategy": "dynamo",
        "destination": "10.0.0.1:8000",
        "record": ["metadata:used"],
        "token_count": 8000,
        "cached_tokens": 64,
        "pick_ms": 0.4,
        "response_status": 200,
        "total_ms": 1250.0,
    }


def test_fallbacks_are_logged_with_their_reason():
    fallbacks = (Fallback("dynamo", StrategyFault.DEADLINE),)
    (line,) = logged(ExchangeRecord(Outcome.ROUTED, Termination.ENDED, fallbacks=fallbacks))
    assert line["fallbacks"] == ["dynamo:deadline"]


def test_an_exchange_has_the_time_of_its_end():
    moments = iter((1_000_000.25, 1_000_061.0))
    times = [line["time"] for line in logged(ROUTED, ROUTED, now=lambda: next(moments))]
    assert times == ["1970-01-12T13:46:40.250Z", "1970-01-12T13:47:41.000Z"]


ILL = (
    REFUSED,
    replace(ROUTED, fallbacks=(Fallback("dynamo", StrategyFault.DEADLINE),)),
    replace(ROUTED, response_status=500),
    replace(ROUTED, termination=Termination.FAILED),
    ExchangeRecord(Outcome.REFUSED_BAD_REQUEST, Termination.REJECTED),
    ExchangeRecord(Outcome.UNDECIDED, Termination.CANCELLED),
    ExchangeRecord(Outcome.RESPONSE_ONLY, Termination.ENDED, response_status=503),
)
WELL = (
    ROUTED,
    replace(ROUTED, response_status=404),
    replace(ROUTED, termination=Termination.CANCELLED),
    ExchangeRecord(Outcome.RESPONSE_ONLY, Termination.ENDED, response_status=413),
)


def test_what_went_wrong_is_a_warning_and_what_went_well_is_not():
    assert {line["level"] for line in logged(*ILL)} == {"warning"}
    assert {line["level"] for line in logged(*WELL)} == {"info"}


def test_of_exchanges_that_went_well_a_share_is_told_and_of_the_others_all():
    lines = logged(*[*ILL, *WELL] * 5, settings=LogSettings(exchange_ratio=0.5))
    levels = [line["level"] for line in lines]
    assert levels.count("warning") == 5 * len(ILL)
    assert levels.count("info") == 10


@pytest.mark.parametrize(("level", "told"), [(LogLevel.INFO, 2), (LogLevel.WARNING, 1), (LogLevel.ERROR, 0)])
def test_the_level_holds_for_exchanges(level, told):
    assert len(logged(ROUTED, REFUSED, settings=LogSettings(level=level))) == told
