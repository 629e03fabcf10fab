"""The reference Endpoint Picker's metrics, under its names of both generations.

Dashboards of an Inference Gateway look for `llm_d_epp_*`, older ones for `inference_objective_*`,
`inference_pool_*` and `inference_extension_*` (llm-d-router, pkg/epp/metrics; both are emitted there, too).
What is measured is kept once; it is shown under two names when it is read.

Differences, since no label here holds what a client chose: `model_name` is a name of tokenext's catalog, or
"unknown"; `target_model_name` is the same, or "rewritten"; `fairness_id` is always "". A time to first token
is that of a success. Which of the reference's series are not here, and why: docs/operations.md.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord, Outcome, RequestRouted
from epp_adapter.gateway_families import HistogramFamily, Labels, NumberFamily, Shown, ShownTwice
from epp_adapter.gateway_pool_metrics import PoolCollector
from epp_adapter.response_body import Usage
from epp_adapter.response_timing import GAP_BOUNDS
from epp_adapter.routing.load import LoadSource
from epp_adapter.scrape import Scrape, ScrapeOutcome

__all__ = ["GatewayMetrics"]

_MODEL: Final = ("model_name", "target_model_name", "fairness_id", "priority")
_OLD_MODEL: Final = ("model_name", "target_model_name")
_ATTEMPT: Final = ("status", "target_model_name")
_UNKNOWN: Final = "unknown"
_OTHER: Final = "other"
MAX_MODELS: Final = 1_000  # the reference's bound
# The reference's buckets.
_SECONDS: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
    120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
_FIRST_TOKEN_SECONDS: Final = _SECONDS[: _SECONDS.index(120) + 1]
_SECONDS_PER_TOKEN: Final = (
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1,
    2,
)  # fmt: skip
_NORMALIZED_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PICK_SECONDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_DECIDE_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
_REQUEST_BYTES: Final = tuple(2**power for power in range(6, 31))
_RESPONSE_BYTES: Final = (1, *(2**power for power in range(3, 17)))
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
    Outcome.REFUSED_TOO_MANY_HEADERS: "BadRequest",
}
_SERVER_ERROR: Final = 500
_SOURCE: Final = "metrics-data-source"  # the reference's name for what scrapes
_EXTRACTOR: Final = "core-metrics-extractor"


class GatewayMetrics:
    """Registers on the given registry; an observer of exchanges, of their starts, and of scrapes."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        self._requests: Final = NumberFamily("counter", _MODEL)
        self._errors: Final = NumberFamily("counter", (*_MODEL, "error_code"))
        self._running: Final = NumberFamily("gauge", _MODEL)
        self._attempts: Final = NumberFamily("counter", _ATTEMPT)
        self._seconds: Final = HistogramFamily(_SECONDS, _MODEL)
        self._request_bytes: Final = HistogramFamily(_REQUEST_BYTES, _MODEL)
        self._response_bytes: Final = HistogramFamily(_RESPONSE_BYTES, _MODEL)
        self._input: Final = HistogramFamily(_INPUT_TOKENS, _MODEL)
        self._output: Final = HistogramFamily(_OUTPUT_TOKENS, _MODEL)
        self._cached: Final = HistogramFamily(_INPUT_TOKENS, _MODEL)
        self._normalized: Final = HistogramFamily(_NORMALIZED_SECONDS, _MODEL)
        self._first_token: Final = HistogramFamily(_FIRST_TOKEN_SECONDS, (*_MODEL, "streaming"))
        self._per_token: Final = HistogramFamily(_SECONDS_PER_TOKEN, _MODEL)
        self._gaps: Final = HistogramFamily(GAP_BOUNDS, _MODEL)
        self._picks: Final = HistogramFamily(_PICK_SECONDS)
        self._decisions: Final = HistogramFamily(_DECIDE_SECONDS)
        self._poll_errors: Final = NumberFamily("counter", ("source_type",))
        self._extract_errors: Final = NumberFamily("counter", ("source_type", "extractor_type"))
        self._info: Final = NumberFamily("gauge", ("commit", "build_ref"))
        self._info.add(("", version))
        registry.register(ShownTwice(tuple(self._shown())))
        self._registry: Final = registry
        self._models: set[str] = set()

    def _shown(self) -> Iterator[Shown]:
        def twice(
            name: str,
            old: str,
            old_labels: tuple[str, ...],
            family: NumberFamily | HistogramFamily,
            text: str,
        ) -> Shown:
            return Shown(f"llm_d_epp_{name}", text, family, f"inference_{old}", old_labels)

        def once(name: str, family: NumberFamily | HistogramFamily, text: str) -> Shown:
            return Shown(f"llm_d_epp_{name}", text, family)

        yield from (
            twice("request", "objective_request", (*_OLD_MODEL, "priority"), self._requests,
                  "Requests, by model."),
            twice("request_error", "objective_request_error", (*_OLD_MODEL, "error_code"), self._errors,
                  "Requests that failed."),
            twice("request_running", "objective_running_requests", ("model_name",), self._running,
                  "Requests that are routed, and not over."),
            twice("request_duration_seconds", "objective_request_duration_seconds", _OLD_MODEL, self._seconds,
                  "Response latency."),
            twice("request_size_bytes", "objective_request_sizes", _OLD_MODEL, self._request_bytes,
                  "Sizes of request bodies."),
            twice("response_size_bytes", "objective_response_sizes", _OLD_MODEL, self._response_bytes,
                  "Sizes of response bodies."),
            twice("request_input_tokens", "objective_input_tokens", _OLD_MODEL, self._input,
                  "Tokens of prompts."),
            twice("request_output_tokens", "objective_output_tokens", _OLD_MODEL, self._output,
                  "Tokens of replies."),
            twice("request_cached_tokens", "objective_prompt_cached_tokens", _OLD_MODEL, self._cached,
                  "Tokens of prompts that the endpoint had cached."),
            twice("request_ntpot_seconds", "objective_normalized_time_per_output_token_seconds", _OLD_MODEL,
                  self._normalized, "Response latency for each token of the reply."),
            once("request_ttft_seconds", self._first_token,
                 "Time until the first token of a streamed reply, and until a reply that comes whole."),
            once("request_streaming_tpot_seconds", self._per_token,
                 "Time for each token but the first, in streamed replies."),
            once("request_streaming_itl_seconds", self._gaps, "Gaps between pieces of streamed replies."),
            twice("scheduler_e2e_duration_seconds", "extension_scheduler_e2e_duration_seconds", (),
                  self._picks, "Time to pick an endpoint."),
            twice("scheduler_attempts", "extension_scheduler_attempts", _ATTEMPT, self._attempts,
                  "Picks that were tried, by what came of them."),
            once("request_processing_duration_seconds", self._decisions,
                 "Time from a request's first message to its verdict."),
            once("datalayer_poll_errors", self._poll_errors, "Scrapes of endpoints that got no page."),
            once("datalayer_extract_errors", self._extract_errors,
                 "Scraped pages without the engine's metrics."),
            twice("info", "extension_info", ("commit", "build_ref"), self._info, "What runs here."),
        )  # fmt: skip

    def watch_pool(self, name: str, ready: Callable[[], tuple[Endpoint, ...]], loads: LoadSource) -> None:
        """Show a pool's ready endpoints and their load, as they are when metrics are read."""
        self._registry.register(PoolCollector(name, ready, loads))

    def scraped(self, scrape: Scrape) -> None:
        if scrape.outcome is ScrapeOutcome.NO_METRICS:
            self._extract_errors.add((_SOURCE, _EXTRACTOR))
        elif scrape.outcome is not ScrapeOutcome.READ:
            self._poll_errors.add((_SOURCE,))

    def request_routed(self, routed: RequestRouted) -> None:
        self._running.add(self._labels(routed))

    def exchange_closed(self, record: ExchangeRecord) -> None:
        if record.outcome is Outcome.RESPONSE_ONLY:
            return
        labels = self._labels(record)
        if record.outcome is Outcome.ROUTED:
            self._running.add(labels, -1)
        self._requests.add(labels)
        self._seconds.observe(labels, record.total_seconds)
        if record.request_bytes is not None:
            self._request_bytes.observe(labels, record.request_bytes)
        if record.decide_seconds is not None:
            self._decisions.observe((), record.decide_seconds)
        if record.pick_seconds is not None:
            self._picks.observe((), record.pick_seconds)
            self._attempts.add(("success" if record.strategy else "failure", labels[1]))
        if record.token_count:
            self._input.observe(labels, record.token_count)
        if record.cached_tokens is not None:
            self._cached.observe(labels, record.cached_tokens)
        self._reply(labels, record)
        code = _ERRORS.get(record.outcome)
        if code is None and record.response_status >= _SERVER_ERROR:
            code = "ModelServerError"
        if code is not None:
            self._errors.add((*labels, code))

    def _reply(self, labels: Labels, record: ExchangeRecord) -> None:
        response = record.response
        if response.body_bytes is not None:
            self._response_bytes.observe(labels, response.body_bytes)
        if response.gaps is not None:
            self._gaps.add(labels, response.gaps.counts, response.gaps.seconds)
        first = response.first_token_seconds
        if first is not None:
            self._first_token.observe((*labels, "true" if response.streamed else "false"), first)
        if record.usage is not None:
            self._tokens_of_reply(labels, record, record.usage)

    def _tokens_of_reply(self, labels: Labels, record: ExchangeRecord, usage: Usage) -> None:
        tokens, first = usage.completion_tokens, record.response.first_token_seconds
        self._output.observe(labels, tokens)
        if tokens > 0:
            self._normalized.observe(labels, record.total_seconds / tokens)
        if tokens > 1 and first is not None and record.response.streamed:
            self._per_token.observe(labels, (record.total_seconds - first) / (tokens - 1))

    def _labels(self, of: RequestRouted | ExchangeRecord) -> Labels:
        model = self._label(of.model or _UNKNOWN)
        return (model, "rewritten" if of.rewritten else model, "", str(of.priority))

    def _label(self, model: str) -> str:
        """Records name models of tokenext's catalog; should something else write them, this is the bound."""
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODELS:
            return _OTHER
        self._models.add(model)
        return model
