"""Who hears of an exchange."""

import pytest
from prometheus_client import CollectorRegistry

from extproc.tracing import RecordingTracing
from tokenext.json_log import JsonLog
from tokenext.metrics import PrometheusObserver
from tokenext.observer import ExchangeRecord, Outcome
from tokenext.observers import Observers
from tokenext.spans import ExchangeSpans


@pytest.mark.parametrize(("readable", "counted"), [(True, 1.0), (False, None)])
def test_log_and_traces_hear_of_an_exchange_and_metrics_if_somebody_can_read_them(readable, counted):
    registry, lines, tracing = CollectorRegistry(), [], RecordingTracing()
    observers = Observers(
        PrometheusObserver(registry),
        JsonLog(lines.append),
        ExchangeSpans(tracing, lambda: 1.0),
        readable=readable,
    )
    observers.exchanged(ExchangeRecord("qwen3", Outcome.PASSED, "deadline"))
    labels = {"model": "qwen3", "outcome": "passed", "reason": "deadline"}
    assert registry.get_sample_value("tokenext_requests_total", labels) == counted
    assert (len(lines), len(tracing.told)) == (1, 1)
