"""Prometheus metrics of the pool: who served, whom we set aside, what was used, and what is being watched."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from epp_adapter.discovery.pool_state import Resource
from epp_adapter.discovery.watching import WatchEvent
from epp_adapter.exchange_record import ExchangeRecord
from epp_adapter.passive_health import Failure, HealthChange, Served, Transition
from epp_adapter.scrape import Scrape

__all__ = ["PoolMetrics"]


class PoolMetrics:
    """Registers on the given registry. Labels are enums: endpoints come and go, so none is a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._served = Counter(
            "epp_adapter_served_total",
            "Responses, by which endpoint the gateway says has served: chosen, or another.",
            ["endpoint"],
            registry=registry,
        )
        self._failures = Counter(
            "epp_adapter_endpoint_failures_total",
            "Times an endpoint was set aside, by what was seen of its failure.",
            ["reason"],
            registry=registry,
        )
        self._readmitted = Counter(
            "epp_adapter_endpoints_readmitted_total",
            "Endpoints that were set aside and answered a probe.",
            registry=registry,
        )
        self._set_aside = Gauge(
            "epp_adapter_endpoints_set_aside", "Endpoints that are set aside now.", registry=registry
        )
        self._down = Gauge(
            "epp_adapter_endpoints_down",
            "Endpoints that are set aside and did not answer a probe.",
            registry=registry,
        )
        self._tokens = Counter(
            "epp_adapter_usage_tokens_total",
            "Tokens that model servers counted, where response bodies are seen.",
            ["kind"],
            registry=registry,
        )
        self._rewritten = Counter(
            "epp_adapter_model_rewrites_total",
            "Requests whose model was rewritten.",
            registry=registry,
        )
        self._scrapes = Counter(
            "epp_adapter_scrapes_total",
            "Scrapes of model servers' metrics, by what came of them.",
            ["outcome"],
            registry=registry,
        )
        self._scrape_seconds = Histogram(
            "epp_adapter_scrape_duration_seconds",
            "Time to scrape one model server.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=registry,
        )
        self._fresh_loads = Gauge(
            "epp_adapter_fresh_loads", "Endpoints with a reading that is not stale.", registry=registry
        )
        self._watches = Counter(
            "epp_adapter_pool_watches_total",
            "What happened to lists and watches of the pool's Kubernetes objects.",
            ["resource", "event"],
            registry=registry,
        )
        self._unreadable = Counter(
            "epp_adapter_pool_unreadable_total",
            "Kubernetes objects that were left out because they could not be read.",
            ["resource"],
            registry=registry,
        )
        # Found once: Prometheus checks the labels at each look.
        self._served_by = {served: self._served.labels(served) for served in Served}
        for failure in Failure:
            self._failures.labels(failure)

    def watch(self, set_aside: Callable[[], int], down: Callable[[], int]) -> None:
        """Ask these whenever metrics are read; from another thread, so they must only read."""
        self._set_aside.set_function(set_aside)
        self._down.set_function(down)

    def watch_loads(self, fresh: Callable[[], int]) -> None:
        self._fresh_loads.set_function(fresh)

    def scraped(self, scrape: Scrape) -> None:
        self._scrapes.labels(scrape.outcome).inc()
        self._scrape_seconds.observe(scrape.seconds)

    def watched(self, resource: Resource, event: WatchEvent) -> None:
        self._watches.labels(resource, event).inc()

    def object_unreadable(self, resource: Resource) -> None:
        self._unreadable.labels(resource).inc()

    def health_changed(self, change: HealthChange) -> None:
        if change.transition is Transition.READMITTED:
            self._readmitted.inc()
        elif change.failure is not None:
            self._failures.labels(change.failure).inc()

    def exchange_closed(self, record: ExchangeRecord) -> None:
        if record.served is not None:
            self._served_by[record.served].inc()
        if record.rewritten:
            self._rewritten.inc()
        if record.usage is not None:
            self._tokens.labels("prompt").inc(record.usage.prompt_tokens)
            self._tokens.labels("completion").inc(record.usage.completion_tokens)
            self._tokens.labels("cached").inc(record.usage.cached_tokens or 0)
