"""The reference picker's metrics, in both generations of names, from one set of figures."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp_adapter.endpoints import Endpoint
from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.gateway_metrics import MAX_MODELS, GatewayMetrics
from epp_adapter.response_body import Usage
from epp_adapter.routing.load import NO_LOADS, EndpointLoad, FixedLoads
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
    metrics.exchange_closed(exchange(response_status=200, cached_tokens=64, usage=Usage(900, 12, 64)))
    metrics.exchange_closed(exchange(priority=-1, rewritten=True))
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
    ],
)
def test_both_generations_tell_the_same(registry, metrics, new, old):
    for priority in (0, 0, 5):
        metrics.exchange_closed(exchange(priority=priority, cached_tokens=10))
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


def test_without_readings_there_are_no_averages(registry, metrics):
    metrics.watch_pool("pool", lambda: ENDPOINTS, NO_LOADS)
    assert value(registry, "llm_d_epp_average_queue_size") is None
