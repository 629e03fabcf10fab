"""What an operator sees: metrics against a golden exposition, and the log lines."""

import json
import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from epp_adapter.discovery.static_file import ReloadOutcome
from epp_adapter.exchange import ExchangeRecord, Outcome
from epp_adapter.exchange_log import ExchangeLog, JsonLines
from epp_adapter.metrics import Metrics
from epp_adapter.records.finder import Finding, RecordSource, RecordState
from epp_adapter.records.tokenizer import CalloutFault
from epp_adapter.routing.strategy import Fallback, StrategyFault
from extproc.events import Termination
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


@pytest.fixture
def lines():
    """What the package's loggers write, formatted."""
    written = []

    class Handler(logging.Handler):
        def emit(self, record):
            written.append(json.loads(self.format(record)))

    handler = Handler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("epp_adapter")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)


def logged(*records, now=lambda: 1_000_000.5) -> list[dict]:
    written = []
    log = ExchangeLog(written.append, now)
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
        "x_request_id": "7b6c2a44-9f0e-4a35-8f4e-0d5b7c1f2a33",
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


def test_an_exchange_has_the_time_of_its_end_as_every_line_has(lines):
    moments = iter((1_000_000.25, 1_000_000.75, 1_000_061.0))
    times = [line["time"] for line in logged(ROUTED, ROUTED, ROUTED, now=lambda: next(moments))]
    record = logging.makeLogRecord({"created": 1_000_000.25, "msecs": 250})
    assert times[0] == json.loads(JsonLines().format(record))["time"]
    assert times[1].removesuffix("750") == times[0].removesuffix("250")
    assert times[2].endswith(".000")
    assert len(set(times)) == 3


def test_an_exception_stays_on_one_line(lines):
    logging.getLogger("epp_adapter").error("it failed", exc_info=ValueError("first\nsecond"))
    assert lines[0]["message"] == "it failed"
    assert "first\nsecond" in lines[0]["exception"]
