"""The reference Endpoint Picker's metrics, under its names of both generations.

Dashboards of an Inference Gateway look for `llm_d_epp_*`, older ones for `inference_objective_*`,
`inference_pool_*` and `inference_extension_*` (llm-d-router, pkg/metrics; both are emitted there, too). What
is measured is kept once; it is shown under two names when it is read.

Differences, since no label here holds what a client chose: `model_name` is a name of tokenext's catalog, or
"unknown"; `target_model_name` is the same, or "rewritten"; `fairness_id` is always "".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.routing.load import LoadSource

__all__ = ["GatewayMetrics"]

_MODEL: Final = ("model_name", "target_model_name", "fairness_id", "priority")
_OLD_MODEL: Final = ("model_name", "target_model_name")
_UNKNOWN: Final = "unknown"
_OTHER: Final = "other"
MAX_MODELS: Final = 1_000  # the reference's bound
_SECONDS: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
    120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
_PICK_SECONDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_INPUT_TOKENS: Final = (1, *(2**power for power in range(3, 21)))
_OUTPUT_TOKENS: Final = (1, *(2**power for power in range(3, 14)))
# What the reference writes into error_code where the picker itself answered.
_ERRORS: Final[Mapping[Outcome, str]] = {
    Outcome.REFUSED_NO_ENDPOINT: "InferencePoolResourceExhausted",
    Outcome.REFUSED_OVERLOADED: "InferencePoolResourceExhausted",
    Outcome.REFUSED_DEADLINE: "Internal",
    Outcome.REFUSED_UNKNOWN_STRATEGY: "BadRequest",
    Outcome.REFUSED_BAD_REQUEST: "BadRequest",
    Outcome.REFUSED_TOO_LARGE: "BadRequest",
}
_SERVER_ERROR: Final = 500


class GatewayMetrics:
    """Registers on the given registry; an observer of exchanges."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self._requests = Counter("request", "Requests, by model.", _MODEL, registry=None)
        self._errors = Counter(
            "request_error", "Requests that failed.", (*_MODEL, "error_code"), registry=None
        )
        self._seconds = Histogram(
            "request_duration_seconds", "Response latency.", _MODEL, buckets=_SECONDS, registry=None
        )
        self._input = Histogram(
            "request_input_tokens", "Tokens of prompts.", _MODEL, buckets=_INPUT_TOKENS, registry=None
        )
        self._output = Histogram(
            "request_output_tokens", "Tokens of replies.", _MODEL, buckets=_OUTPUT_TOKENS, registry=None
        )
        self._cached = Histogram(
            "request_cached_tokens",
            "Tokens of prompts that the endpoint had cached.",
            _MODEL,
            buckets=_INPUT_TOKENS,
            registry=None,
        )
        self._picks = Histogram(
            "scheduler_e2e_duration_seconds",
            "Time to pick an endpoint.",
            buckets=_PICK_SECONDS,
            registry=None,
        )
        info = Gauge("info", "What runs here.", ("commit", "build_ref"), registry=None)
        info.labels("", version).set(1)
        objective, extension = "inference_objective_", "inference_extension_"
        registry.register(
            _Twins(
                (
                    _Twin(self._requests, f"{objective}request", (*_OLD_MODEL, "priority")),
                    _Twin(self._errors, f"{objective}request_error", (*_OLD_MODEL, "error_code")),
                    _Twin(self._seconds, f"{objective}request_duration_seconds", _OLD_MODEL),
                    _Twin(self._input, f"{objective}input_tokens", _OLD_MODEL),
                    _Twin(self._output, f"{objective}output_tokens", _OLD_MODEL),
                    _Twin(self._cached, f"{objective}prompt_cached_tokens", _OLD_MODEL),
                    _Twin(self._picks, f"{extension}scheduler_e2e_duration_seconds", ()),
                    _Twin(info, f"{extension}info", ("commit", "build_ref")),
                )
            )
        )
        self._registry: Final = registry
        # A child per set of labels, found once: Prometheus checks the labels at each look.
        self._request_of = cache(self._requests.labels)
        self._seconds_of = cache(self._seconds.labels)
        self._input_of = cache(self._input.labels)
        self._cached_of = cache(self._cached.labels)
        self._output_of = cache(self._output.labels)
        self._models: set[str] = set()

    def watch_pool(self, name: str, ready: Callable[[], tuple[Endpoint, ...]], loads: LoadSource) -> None:
        """Show a pool's ready endpoints and their load, as they are when metrics are read."""
        self._registry.register(_PoolCollector(name, ready, loads))

    def _label(self, model: str) -> str:
        """Records name models of tokenext's catalog; should something else write them, this is the bound."""
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODELS:
            return _OTHER
        self._models.add(model)
        return model

    def exchange_closed(self, record: ExchangeRecord) -> None:
        if record.outcome is Outcome.RESPONSE_ONLY:
            return
        model = self._label(record.model or _UNKNOWN)
        labels = (model, "rewritten" if record.rewritten else model, "", str(record.priority))
        self._request_of(*labels).inc()
        self._seconds_of(*labels).observe(record.total_seconds)
        if record.pick_seconds is not None:
            self._picks.observe(record.pick_seconds)
        if record.token_count:
            self._input_of(*labels).observe(record.token_count)
        if record.cached_tokens is not None:
            self._cached_of(*labels).observe(record.cached_tokens)
        if record.usage is not None:
            self._output_of(*labels).observe(record.usage.completion_tokens)
        code = _ERRORS.get(record.outcome)
        if code is None and record.response_status >= _SERVER_ERROR:
            code = "ModelServerError"
        if code is not None:
            self._errors.labels(*labels, code).inc()


class _Twin:
    """One metric, to be shown as `llm_d_epp_<its name>` and under the older name, with the older labels."""

    def __init__(
        self, metric: Counter | Gauge | Histogram, old_name: str, old_labels: tuple[str, ...]
    ) -> None:
        self._metric: Final = metric
        self._old_name: Final = old_name
        self._old_labels: Final = (*old_labels, "le")

    def families(self) -> Iterator[Metric]:
        for family in self._metric.collect():
            samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield _renamed(family, f"llm_d_epp_{family.name}", samples)
            yield _renamed(family, self._old_name, self._summed(samples))

    def _summed(self, samples: Iterable[Sample]) -> list[Sample]:
        """Over the labels that the older name does not have."""
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for sample in samples:
            labels = tuple((key, value) for key, value in sample.labels.items() if key in self._old_labels)
            sums[sample.name, labels] = sums.get((sample.name, labels), 0.0) + sample.value
        return [Sample(name, dict(labels), value) for (name, labels), value in sums.items()]


def _renamed(family: Metric, name: str, samples: Iterable[Sample]) -> Metric:
    renamed = Metric(name, family.documentation, family.type, family.unit)
    for sample in samples:
        renamed.samples.append(sample._replace(name=name + sample.name.removeprefix(family.name)))
    return renamed


class _Twins(Collector):
    def __init__(self, twins: tuple[_Twin, ...]) -> None:
        self._twins: Final = twins

    def collect(self) -> Iterator[Metric]:
        for twin in self._twins:
            yield from twin.families()


class _PoolCollector(Collector):
    """Averages over the endpoints of which a reading is known, as the reference has them."""

    def __init__(self, name: str, ready: Callable[[], tuple[Endpoint, ...]], loads: LoadSource) -> None:
        self._name: Final = name
        self._ready: Final = ready
        self._loads: Final = loads

    def collect(self) -> Iterator[Metric]:
        endpoints = self._ready()
        yield from self._both("ready_endpoints", "ready_pods", "Endpoints that are ready.", len(endpoints))
        readings = self._loads.loads([endpoint.address for endpoint in endpoints])
        known = [reading for reading in readings if reading is not None]
        if not known:
            return
        for what, values in (
            ("kv_cache_utilization", [each.kv_utilization for each in known]),
            ("queue_size", [float(each.waiting) for each in known]),
            ("running_requests", [float(each.running) for each in known]),
        ):
            average = sum(values) / len(values)
            text = f"Average {what.replace('_', ' ')} of the pool's endpoints."
            yield from self._both(f"average_{what}", f"average_{what}", text, average)

    def _both(self, name: str, old_name: str, text: str, value: float) -> Iterator[Metric]:
        for each in (f"llm_d_epp_{name}", f"inference_pool_{old_name}"):
            family = Metric(each, text, "gauge")
            family.add_sample(each, {"name": self._name}, value)
            yield family
