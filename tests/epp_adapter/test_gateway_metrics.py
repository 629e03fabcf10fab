"""The reference picker's metrics, in both generations of names, from one set of figures."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord, Outcome, RequestRouted
from epp_adapter.gateway_metrics import MAX_MODELS, GatewayMetrics
from epp_adapter.response_body import Usage
from epp_adapter.response_timing import GAP_BOUNDS, Gaps, ResponseFacts
from epp_adapter.routing.load import NO_LOADS, EndpointLoad, FixedLoads
from epp_adapter.scrape import Scrape, ScrapeOutcome
from extproc.events import Termination

GOLDEN = Path(__file__).parent / "golden" / "gateway_metrics.prom"
ENDPOINTS = (Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000"), Endpoint("10.0.0.3:8000"))
LOADS = FixedLoads(
    {
        "10.0.0.1:8000": EndpointLoad(waiting=4, running=2, kv_utilization=0.5, updated_at=0.0),
        "10.0.0.2:8000": EndpointLoad(waiting=0, running=4, kv_utilization=0.25, updated_at=0.0),
    }
)


def exchange(outcome=Outcome.ROUTED, **fields) -> ExchangeRecord:
    known = {"model": "qwen3", "token_count": 900, "pick_seconds": 0.0003, "total_seconds": 0.7}
    return ExchangeRecord(outcome, Termination.ENDED, **{**known, **fields})


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return GatewayMetrics(registry, version="1.2.3")


def value(registry, series, /, **labels):
    """The sum of a name's series with these labels; None where there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == series and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


def test_what_is_shown_matches_the_golden_exposition(registry, metrics):
    metrics.watch_pool("pool", lambda: ENDPOINTS, LOADS)
    metrics.request_routed(RequestRouted("qwen3", rewritten=False, priority=0))
    metrics.request_routed(RequestRouted("qwen3", rewritten=True, priority=-1))
    metrics.request_routed(RequestRouted("qwen3", rewritten=False, priority=0))
    metrics.exchange_closed(
        exchange(
            response_status=200, cached_tokens=64, usage=Usage(900, 12, 64), strategy="dynamo",
            request_bytes=4_000, decide_seconds=0.0007,
            response=ResponseFacts(
                streamed=True, body_bytes=3_500, first_token_seconds=0.15,
                gaps=Gaps((3, 7, 0, 1, *[0] * 12), 0.06),
            ),
        )
    )  # fmt: skip
    metrics.exchange_closed(exchange(priority=-1, rewritten=True))
    for outcome in (ScrapeOutcome.READ, ScrapeOutcome.TIMEOUT, ScrapeOutcome.NO_METRICS):
        metrics.scraped(Scrape(ENDPOINTS[0], outcome, 0.01))
    metrics.exchange_closed(exchange(Outcome.REFUSED_NO_ENDPOINT, model="", token_count=0))
    assert generate_latest(registry).decode().splitlines() == GOLDEN.read_text().splitlines()


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("llm_d_epp_request_total", "inference_objective_request_total"),
        ("llm_d_epp_request_duration_seconds_count", "inference_objective_request_duration_seconds_count"),
        ("llm_d_epp_request_input_tokens_sum", "inference_objective_input_tokens_sum"),
        ("llm_d_epp_request_cached_tokens_sum", "inference_objective_prompt_cached_tokens_sum"),
        (
            "llm_d_epp_scheduler_e2e_duration_seconds_count",
            "inference_extension_scheduler_e2e_duration_seconds_count",
        ),
        ("llm_d_epp_request_size_bytes_sum", "inference_objective_request_sizes_sum"),
        ("llm_d_epp_response_size_bytes_sum", "inference_objective_response_sizes_sum"),
        (
            "llm_d_epp_request_ntpot_seconds_sum",
            "inference_objective_normalized_time_per_output_token_seconds_sum",
        ),
        ("llm_d_epp_scheduler_attempts_total", "inference_extension_scheduler_attempts_total"),
    ],
)
def test_both_generations_tell_the_same(registry, metrics, new, old):
    for priority in (0, 0, 5):
        metrics.exchange_closed(
            exchange(
                priority=priority, cached_tokens=10, request_bytes=70, usage=Usage(900, 12),
                response=ResponseFacts(body_bytes=300),
            )
        )  # fmt: skip
    assert value(registry, new) == value(registry, old) > 0


def test_the_older_names_sum_over_the_labels_they_do_not_have(registry, metrics):
    for priority in (0, 0, 5):
        metrics.exchange_closed(exchange(priority=priority))
    name = "request_duration_seconds_count"
    assert value(registry, f"llm_d_epp_{name}", priority="0") == 2
    assert value(registry, f"inference_objective_{name}", model_name="qwen3") == 3


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (Outcome.REFUSED_NO_ENDPOINT, 0, "InferencePoolResourceExhausted"),
        (Outcome.REFUSED_UNKNOWN_STRATEGY, 0, "BadRequest"),
        (Outcome.ROUTED, 503, "ModelServerError"),
    ],
)
def test_what_failed_is_an_error_with_a_code(registry, metrics, outcome, status, code):
    metrics.exchange_closed(exchange(outcome, response_status=status))
    assert value(registry, "llm_d_epp_request_error_total", error_code=code) == 1


def test_an_answer_of_400_is_the_clients_and_no_error_of_the_pool(registry, metrics):
    metrics.exchange_closed(exchange(response_status=400))
    assert value(registry, "llm_d_epp_request_error_total") is None


def test_a_stream_that_was_no_request_counts_as_none(registry, metrics):
    metrics.exchange_closed(exchange(Outcome.RESPONSE_ONLY))
    assert value(registry, "llm_d_epp_request_total") is None


def test_the_number_of_model_names_is_bounded(registry, metrics):
    for number in range(MAX_MODELS + 5):
        metrics.exchange_closed(exchange(model=f"m-{number}"))
    assert value(registry, "llm_d_epp_request_total", model_name="other") == 5
    assert value(registry, "llm_d_epp_request_total", model_name="m-0") == 1


def test_the_averages_are_over_endpoints_of_which_a_reading_is_known(registry, metrics):
    metrics.watch_pool("pool", lambda: ENDPOINTS, LOADS)
    assert value(registry, "llm_d_epp_ready_endpoints", name="pool") == 3
    assert value(registry, "inference_pool_ready_pods", name="pool") == 3
    assert value(registry, "llm_d_epp_average_queue_size") == 2
    assert value(registry, "inference_pool_average_kv_cache_utilization") == 0.375
    assert value(registry, "llm_d_epp_std_dev_queue_size") == 2
    assert value(registry, "llm_d_epp_std_dev_running_requests") == 1
    assert value(registry, "llm_d_epp_std_dev_kv_cache_utilization") == 0.125


def test_each_ready_endpoint_shows_its_queue_as_long_as_it_is_ready(registry, metrics):
    ready = list(ENDPOINTS)
    metrics.watch_pool("pool", lambda: tuple(ready), LOADS)
    at = {"name": "pool", "model_server_endpoint": "10.0.0.1:8000"}
    assert value(registry, "llm_d_epp_per_endpoint_queue_size", **at) == 4
    old = {"name": "pool", "model_server_pod": "10.0.0.1:8000"}
    assert value(registry, "inference_pool_per_pod_queue_size", **old) == 4
    del ready[0]
    assert value(registry, "llm_d_epp_per_endpoint_queue_size", **at) is None
    assert value(registry, "llm_d_epp_per_endpoint_queue_size") == 0


def test_without_readings_there_are_no_averages(registry, metrics):
    metrics.watch_pool("pool", lambda: ENDPOINTS, NO_LOADS)
    assert value(registry, "llm_d_epp_average_queue_size") is None


def test_what_runs_is_what_is_routed_and_not_over(registry, metrics):
    for priority in (0, 0, 3):
        metrics.request_routed(RequestRouted("qwen3", rewritten=False, priority=priority))
    metrics.exchange_closed(exchange())
    metrics.exchange_closed(exchange(Outcome.REFUSED_NO_ENDPOINT))
    metrics.exchange_closed(exchange(Outcome.UNDECIDED))
    assert value(registry, "llm_d_epp_request_running", priority="0") == 1
    assert value(registry, "llm_d_epp_request_running", priority="3") == 1
    assert value(registry, "inference_objective_running_requests", model_name="qwen3") == 2


def test_nothing_runs_when_all_is_over_however_many_models_there_were(registry, metrics):
    models = [f"m-{number}" for number in range(MAX_MODELS + 5)]
    for model in models:
        metrics.request_routed(RequestRouted(model, rewritten=False, priority=0))
    for model in reversed(models):
        metrics.exchange_closed(exchange(model=model))
    running = [
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "llm_d_epp_request_running"
    ]
    assert len(running) == MAX_MODELS + 1
    assert not any(running)


def test_a_reply_that_is_not_streamed_has_a_first_token_and_no_time_per_token_after_it(registry, metrics):
    whole = ResponseFacts(body_bytes=300, first_token_seconds=0.5)
    metrics.exchange_closed(exchange(response=whole, usage=Usage(900, 14)))
    assert value(registry, "llm_d_epp_request_ttft_seconds_sum", streaming="false") == 0.5
    assert value(registry, "llm_d_epp_request_streaming_tpot_seconds_count") is None
    assert value(registry, "llm_d_epp_request_ntpot_seconds_sum") == pytest.approx(0.7 / 14)


def test_the_time_per_token_of_a_stream_leaves_out_the_first(registry, metrics):
    streamed = ResponseFacts(streamed=True, body_bytes=300, first_token_seconds=0.2)
    metrics.exchange_closed(exchange(response=streamed, usage=Usage(900, 11)))
    assert value(registry, "llm_d_epp_request_streaming_tpot_seconds_sum") == pytest.approx(0.05)
    assert value(registry, "llm_d_epp_request_ttft_seconds_count", streaming="true") == 1


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_reply_of_at_most_one_token_is_divided_by_nothing(registry, metrics, tokens):
    streamed = ResponseFacts(streamed=True, body_bytes=300, first_token_seconds=0.2)
    metrics.exchange_closed(exchange(response=streamed, usage=Usage(900, tokens)))
    assert value(registry, "llm_d_epp_request_streaming_tpot_seconds_count") is None
    assert value(registry, "llm_d_epp_request_ntpot_seconds_count") == (1 if tokens else None)


def test_gaps_of_many_streams_add_up_in_their_buckets(registry, metrics):
    gaps = Gaps((1, 2, *[0] * (len(GAP_BOUNDS) - 2), 3), 9.5)
    for _ in range(2):
        metrics.exchange_closed(exchange(response=ResponseFacts(streamed=True, body_bytes=1, gaps=gaps)))
    name = "llm_d_epp_request_streaming_itl_seconds"
    assert [value(registry, f"{name}_bucket", le=le) for le in ("0.001", "0.005", "2.0", "+Inf")] == [
        2,
        6,
        6,
        12,
    ]
    assert value(registry, f"{name}_sum") == 19


def test_a_pick_that_failed_is_an_attempt_and_a_request_that_never_came_so_far_is_none(registry, metrics):
    metrics.exchange_closed(exchange(strategy="dynamo"))
    metrics.exchange_closed(exchange(Outcome.REFUSED_OVERLOADED))
    metrics.exchange_closed(exchange(Outcome.REFUSED_UNKNOWN_STRATEGY, pick_seconds=None))
    assert value(registry, "llm_d_epp_scheduler_attempts_total", status="success") == 1
    assert value(registry, "llm_d_epp_scheduler_attempts_total", status="failure") == 1
