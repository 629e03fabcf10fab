"""Prometheus metrics. Labels hold catalog names and words of enums, never what a client sent."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.conversations import ConversationSnapshot
from tokenext.observer import ExchangeRecord, Outcome, Stage
from tokenext.parity import Finding, ParityRecord, handoff_allowed
from tokenext.prefix_tree import PrefixSnapshot

__all__ = ["PrometheusObserver"]

_SECONDS: Final = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
_TOKENS: Final = tuple(2**power for power in range(4, 21))  # 16 to a million


class PrometheusObserver:
    """Counts exchanges and reloads in the registry it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = Counter(
            "tokenext_requests",
            "Requests by what became of them.",
            ["model", "outcome", "reason"],
            registry=registry,
        )
        self._handoffs = Counter(
            "tokenext_handoffs", "Requests whose body carries the token ids on.", ["model"], registry=registry
        )
        self._seconds = Histogram(
            "tokenext_stage_duration_seconds",
            "Time by stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Histogram(
            "tokenext_prompt_tokens",
            "Prompt lengths in tokens.",
            ["model"],
            buckets=_TOKENS,
            registry=registry,
        )
        self._reloads = Counter(
            "tokenext_reloads", "Reloads of the settings file.", ["outcome"], registry=registry
        )
        self._queue = Gauge(
            "tokenext_queue_requests",
            "Requests that wait for a worker thread or hold one.",
            registry=registry,
        )
        self._models = Gauge(
            "tokenext_model_info",
            "Models of the catalog.",
            ["model", "engine", "profile", "handoff"],
            registry=registry,
        )
        self._rounds = Counter(
            "tokenext_parity_rounds",
            "Comparisons of our ids with those of a running engine.",
            ["model", "finding"],
            registry=registry,
        )
        self._mismatch = Gauge(
            "tokenext_parity_mismatch",
            "1 while a model's ids are not handed over because its engine computes others.",
            ["model"],
            registry=registry,
        )
        self._breaker_open = Gauge(
            "tokenext_breaker_open",
            "1 while a model's requests pass untokenized because tokenizing them failed again and again.",
            ["model"],
            registry=registry,
        )
        self._breaker_changes = Counter(
            "tokenext_breaker_changes",
            "Changes of a model's circuit breaker, by the state it came to.",
            ["model", "state"],
            registry=registry,
        )
        # A series is looked up by its labels' texts, which takes longer than to observe.
        self._stages = {stage: self._seconds.labels(stage) for stage in Stage}
        self._request = cache(self._requests.labels)
        self._model_tokens = cache(self._tokens.labels)
        self._handed_off = cache(self._handoffs.labels)
        for outcome in ("loaded", "failed"):
            self._reloads.labels(outcome)  # so that a rate exists before the first one

    def exchanged(self, record: ExchangeRecord) -> None:
        self._request(record.model, record.outcome, record.reason).inc()
        for stage, seconds in record.seconds.items():
            self._stages[stage].observe(seconds)
        if record.outcome is Outcome.TOKENIZED:
            self._model_tokens(record.model).observe(record.prompt_tokens)
        if record.handed_off:
            self._handed_off(record.model).inc()

    def reloaded(self, catalog: Catalog) -> None:
        self._reloads.labels("loaded").inc()
        self.show_models(catalog)

    def reload_failed(self, problem: str) -> None:
        del problem
        self._reloads.labels("failed").inc()

    def verified(self, record: ParityRecord) -> None:
        self._rounds.labels(record.model, record.report.finding).inc()
        self._mismatch.labels(record.model).set(0 if handoff_allowed(record.standing) else 1)

    def outcomes(self) -> dict[tuple[str, str, str], float]:
        """Requests since the start, by model, outcome and reason. Another thread may ask."""
        return {
            (sample.labels["model"], sample.labels["outcome"], sample.labels["reason"]): sample.value
            for family in self._requests.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def breaker_changed(self, model: str, state: BreakerState) -> None:
        self._breaker_open.labels(model).set(0 if state is BreakerState.CLOSED else 1)
        self._breaker_changes.labels(model, state).inc()

    def watch_queue(self, held: Callable[[], int]) -> None:
        """Show the queue's length, read at every scrape."""
        self._queue.set_function(held)

    def watch_prefix_cache(self, snapshot: Callable[[], PrefixSnapshot]) -> None:
        """Show the prefix cache's own counts, read at every scrape."""
        self._registry.register(_PrefixCacheCollector(snapshot))

    def watch_conversations(self, snapshot: Callable[[], ConversationSnapshot]) -> None:
        """Show what is remembered of conversations, read at every scrape."""
        self._registry.register(_ConversationCollector(snapshot))

    def show_models(self, catalog: Catalog) -> None:
        self._models.clear()
        self._mismatch.clear()
        self._breaker_open.clear()
        for model in catalog.models:
            self._breaker_open.labels(model.name).set(0)
            for state in BreakerState:
                self._breaker_changes.labels(model.name, state)  # so that a rate exists before the first one
            if model.verification is not None:
                self._mismatch.labels(model.name).set(0 if model.doubt is None else 1)
                for finding in Finding:
                    self._rounds.labels(model.name, finding)  # so that a rate exists before the first one
            self._models.labels(model.name, model.engine.name, model.profile.name, model.handoff).set(1)


class _PrefixCacheCollector(Collector):
    def __init__(self, snapshot: Callable[[], PrefixSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        seen = self._snapshot()
        lookups = CounterMetricFamily(
            "tokenext_prefix_cache_lookups",
            "Prompts by how much of them was known: up to their last cut, up to an earlier one, nothing.",
            labels=["outcome"],
        )
        for outcome, count in (("hit", seen.hits), ("partial", seen.partial_hits), ("miss", seen.misses)):
            lookups.add_metric([outcome], count)
        tokens = CounterMetricFamily(
            "tokenext_prefix_cache_tokens",
            "Tokens of those prompts by where they came from.",
            labels=["source"],
        )
        for source, count in (("cache", seen.tokens_reused), ("engine", seen.tokens_encoded)):
            tokens.add_metric([source], count)
        yield lookups
        yield tokens
        yield CounterMetricFamily(
            "tokenext_prefix_cache_evictions", "Entries that made room for others.", value=seen.evictions
        )
        yield GaugeMetricFamily(
            "tokenext_prefix_cache_entries", "Pieces of prompts that are kept.", value=seen.entries
        )
        yield GaugeMetricFamily("tokenext_prefix_cache_bytes", "What they take.", value=seen.bytes)
        yield GaugeMetricFamily(
            "tokenext_prefix_cache_budget_bytes", "What they may take.", value=seen.budget_bytes
        )


class _ConversationCollector(Collector):
    def __init__(self, snapshot: Callable[[], ConversationSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        seen = self._snapshot()
        lookups = CounterMetricFamily(
            "tokenext_conversation_lookups",
            "Chats by whether an earlier turn of theirs was remembered; short ones are not looked up.",
            labels=["outcome"],
        )
        for outcome, count in (("continued", seen.continued), ("new", seen.new)):
            lookups.add_metric([outcome], count)
        yield lookups
        yield CounterMetricFamily(
            "tokenext_conversation_evictions",
            "Conversations that made room for others.",
            value=seen.evictions,
        )
        yield GaugeMetricFamily(
            "tokenext_conversations", "Conversations that are remembered.", value=seen.entries
        )
        yield GaugeMetricFamily("tokenext_conversation_bytes", "What they take, about.", value=seen.bytes)
        yield GaugeMetricFamily(
            "tokenext_conversation_budget_bytes", "What they may take.", value=seen.budget_bytes
        )
