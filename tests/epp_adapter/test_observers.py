"""Who hears of an exchange."""

from prometheus_client import CollectorRegistry

from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.gateway_metrics import GatewayMetrics
from epp_adapter.metrics import Metrics
from epp_adapter.observers import observers
from epp_adapter.pool_metrics import PoolMetrics
from epp_adapter.status_page import RecentPicks
from extproc.events import Termination

RECORD = ExchangeRecord(Outcome.ROUTED, Termination.ENDED, strategy="internal")


def heard_by(others, *, readable: bool):
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    gateway = GatewayMetrics(registry, version="1")
    heard = observers(metrics, PoolMetrics(registry), gateway, RecentPicks(), others, readable=readable)
    for observer in heard.closed:
        observer(RECORD)
    labels = {"outcome": "routed", "strategy": "internal"}
    return registry.get_sample_value("epp_adapter_requests_total", labels), heard


def test_metrics_and_all_others_hear_of_an_exchange():
    log, spans = [], []
    counted, heard = heard_by([log.append, spans.append], readable=True)
    assert (counted, log, spans) == (1.0, [RECORD], [RECORD])
    assert heard.routed


def test_nothing_is_counted_that_nobody_can_read_and_the_others_hear_all_the_same():
    log = []
    counted, heard = heard_by([log.append], readable=False)
    assert (counted, log) == (None, [RECORD])
    assert heard.routed == ()
