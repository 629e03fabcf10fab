"""Prometheus metrics: what exchanges, fallbacks and reloads report, and gauges of what stands now."""

from collections.abc import Callable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from epp_adapter.discovery.static_file import ReloadOutcome
from epp_adapter.exchange import ExchangeRecord
from epp_adapter.records.finder import Finding
from epp_adapter.routing.strategy import Fallback

__all__ = ["Metrics"]

# A pick takes microseconds; what is slower than the default deadline of 200 ms is one bucket.
_PICK_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_NOBODY: Final = "none"  # nobody picked


class Metrics:
    """Registers on the given registry. Labels are enums and names from the settings, so their number is
    bounded.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "epp_adapter_requests_total",
            "Exchanges, by how they ended and by the strategy that picked.",
            ["outcome", "strategy"],
            registry=registry,
        )
        self._picks = Histogram(
            "epp_adapter_pick_duration_seconds",
            "Time to pick an endpoint, with all fallbacks, by the strategy that picked.",
            ["strategy"],
            buckets=_PICK_BUCKETS,
            registry=registry,
        )
        self._fallbacks = Counter(
            "epp_adapter_fallbacks_total",
            "Strategies that were asked and could not pick, with the reason.",
            ["strategy", "reason"],
            registry=registry,
        )
        self._records = Counter(
            "epp_adapter_records_total",
            "Places where a token record was looked for, by what came of it: used, absent, or why not used.",
            ["source", "outcome"],
            registry=registry,
        )
        self._reloads = Counter(
            "epp_adapter_reloads_total",
            "Changed endpoints files: applied, or refused so that the last good endpoints stayed.",
            ["outcome"],
            registry=registry,
        )
        self._ready = Gauge("epp_adapter_ready_endpoints", "Endpoints that are ready.", registry=registry)
        self._bookings = Gauge(
            "epp_adapter_bookings_active",
            "Bookings in Dynamo's routers that are not freed.",
            registry=registry,
        )
        # A child per set of labels, found once: Prometheus checks the labels at each look.
        self._request = cache(self._requests.labels)
        self._pick = cache(self._picks.labels)
        self._record = cache(self._records.labels)
        for outcome in ReloadOutcome:
            self._reloads.labels(outcome)

    def watch(self, ready_endpoints: Callable[[], int], bookings_active: Callable[[], int]) -> None:
        """Ask these whenever metrics are read; from another thread, so they must only read."""
        self._ready.set_function(ready_endpoints)
        self._bookings.set_function(bookings_active)

    def outcomes(self) -> dict[tuple[str, str], float]:
        """Exchanges since the start, by outcome and strategy. Another thread may ask."""
        return {
            (sample.labels["outcome"], sample.labels["strategy"]): sample.value
            for family in self._requests.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def exchange_closed(self, record: ExchangeRecord) -> None:
        strategy = record.strategy or _NOBODY
        self._request(record.outcome, strategy).inc()
        if record.pick_seconds is not None:
            self._pick(strategy).observe(record.pick_seconds)

    def looked_for_record(self, finding: Finding) -> None:
        self._record(finding.source, finding.outcome).inc()

    def fell_back(self, fallback: Fallback) -> None:
        self._fallbacks.labels(fallback.strategy, fallback.fault).inc()

    def reloaded(self, outcome: ReloadOutcome) -> None:
        self._reloads.labels(outcome).inc()
