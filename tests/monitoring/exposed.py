"""What both services expose: series, the names of their labels, and the words that a label may have."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import Outcome as EppOutcome
from epp_adapter.gateway_families import ShownTwice
from epp_adapter.gateway_metrics import GatewayMetrics
from epp_adapter.metrics import Metrics
from epp_adapter.pool_metrics import PoolMetrics
from epp_adapter.records.finder import RecordSource, RecordState
from epp_adapter.records.tokenizer import CalloutFault
from epp_adapter.routing.load import EndpointLoad, FixedLoads
from epp_adapter.routing.strategy import StrategyFault
from epp_adapter.scheduler_metrics import SchedulerMetrics
from extproc.exchange import PassingExchange
from extproc.line_writer import LineWriter, LostLines
from extproc.server import Server, ServerOptions
from extproc.stream_metrics import StreamMetrics
from extproc.token_metadata import RecordFault
from tokenext.conversations import ConversationSnapshot
from tokenext.declined import SkipReason
from tokenext.metrics import PrometheusObserver
from tokenext.observer import Outcome, Stage
from tokenext.prefix_tree import PrefixSnapshot
from tokenext.profiles import InexactReason

__all__ = ["WORDS", "Series", "all_series"]

ENDPOINT = Endpoint("10.0.0.1:8000")
_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
# By series and label; what is not here has words that depend on the settings.
WORDS: Mapping[tuple[str, str], frozenset[str]] = {
    ("tokenext_requests_total", "outcome"): frozenset(Outcome),
    ("tokenext_requests_total", "reason"): frozenset([*SkipReason, *InexactReason, "body_too_large"]),
    ("tokenext_stage_duration_seconds_bucket", "stage"): frozenset(Stage),
    ("tokenext_prefix_cache_tokens_total", "source"): frozenset(["cache", "engine"]),
    ("epp_adapter_requests_total", "outcome"): frozenset(EppOutcome),
    ("epp_adapter_fallbacks_total", "reason"): frozenset(StrategyFault),
    ("epp_adapter_records_total", "source"): frozenset(RecordSource),
    ("epp_adapter_records_total", "outcome"): frozenset([*RecordState, *RecordFault, *CalloutFault]),
}


@dataclass(frozen=True)
class Series:
    """`labels` None: not known here (a collector of its own makes them when it is read)."""

    name: str
    labels: frozenset[str] | None


def gateway_labels(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    """Of the families that are shown under two names."""
    found = {}
    for collector in {*registry._collector_to_names}:
        for shown in collector._shown if isinstance(collector, ShownTwice) else ():
            found[shown.name] = frozenset(shown.family._names)
            if shown.old_name is not None:
                found[shown.old_name] = frozenset(shown.old_labels)
    return found


def all_series() -> dict[str, Series]:
    registry = CollectorRegistry()
    tokenext = PrometheusObserver(registry)
    tokenext.watch_prefix_cache(lambda: PrefixSnapshot(budget_bytes=1))
    tokenext.watch_conversations(lambda: ConversationSnapshot(0, 0, 0, 0, 0, 0))
    for service in ("tokenext", "epp_adapter"):
        registry.register(LostLines(service, LineWriter(-1)))
        registry.register(StreamMetrics(service, Server(ServerOptions("unix:/none"), PassingExchange)))
    ProcessCollector(registry=registry)
    Metrics(registry)
    PoolMetrics(registry)
    SchedulerMetrics(registry)
    load = EndpointLoad(waiting=1, running=1, kv_utilization=0.5, updated_at=0.0)
    GatewayMetrics(registry, version="1").watch_pool(
        "pool", lambda: (ENDPOINT,), FixedLoads({ENDPOINT.address: load})
    )
    labels = {
        name: frozenset(collector._labelnames)  # no public way
        for name, collector in registry._names_to_collectors.items()
        if isinstance(collector, MetricWrapperBase)
    }
    labels |= gateway_labels(registry)
    found = {}
    for family in registry.collect():
        for suffix in _SUFFIXES[family.type]:
            known = labels.get(family.name)
            if known is not None and suffix == "_bucket":
                known |= {"le"}
            found[family.name + suffix] = Series(family.name + suffix, known)
    return found
