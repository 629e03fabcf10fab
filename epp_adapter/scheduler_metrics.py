"""Prometheus metrics of strategies that schedule by themselves: KV events, memory, requests in flight."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from epp_adapter.kv_events import KvEventObserver, StreamOutcome
from epp_adapter.routing.prefix_index import Applied

__all__ = ["SchedulerMetrics"]


class SchedulerMetrics:
    """Registers on the given registry. Labels are enums and names from the settings."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._kv_events = Counter(
            "epp_adapter_kv_events_total",
            "KV events, by what became of them; and messages that were missing, unreadable or replayed.",
            ["strategy", "outcome"],
            registry=registry,
        )
        self._prefix_blocks = Gauge(
            "epp_adapter_prefix_blocks",
            "Blocks of prompts that a strategy remembers, over all endpoints.",
            ["strategy"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "epp_adapter_requests_in_flight",
            "Requests that a strategy has picked for and that have not ended.",
            ["strategy"],
            registry=registry,
        )

    def watch(self, strategy: str, in_flight: Callable[[], int], prefix_blocks: Callable[[], int]) -> None:
        """Ask these whenever metrics are read; from another thread, so they must only read."""
        self._in_flight.labels(strategy).set_function(in_flight)
        self._prefix_blocks.labels(strategy).set_function(prefix_blocks)

    def kv_events(self, strategy: str) -> KvEventObserver:
        """The observer of one strategy's KV events. Every outcome is there from the start, as 0."""
        for known in (*Applied, *StreamOutcome):
            self._kv_events.labels(strategy, known)

        def count(outcome: Applied | StreamOutcome, number: int) -> None:
            self._kv_events.labels(strategy, outcome).inc(number)

        return count
