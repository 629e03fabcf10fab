import pytest
from prometheus_client import CollectorRegistry

from tests.tokenext.models import fake_model
from tokenext.catalog import Catalog
from tokenext.metrics import PrometheusObserver
from tokenext.observer import ExchangeRecord, Outcome, Stage
from tokenext.parity import OracleKind, ParityRecord, Report, Standing, Verification
from tokenext.prefix_tree import PrefixSnapshot
from tokenext.profiles import InexactReason

TOKENIZED = ExchangeRecord(
    "m",
    Outcome.TOKENIZED,
    handed_off=True,
    engine_exact=True,
    prompt_tokens=100,
    seconds={Stage.RENDER: 0.002},
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_exchanges_are_counted_by_model_outcome_and_reason(registry):
    observer = PrometheusObserver(registry)
    observer.exchanged(TOKENIZED)
    observer.exchanged(TOKENIZED)
    observer.exchanged(ExchangeRecord("other", Outcome.PASSED, "unknown_model"))
    value = registry.get_sample_value
    labels = {"model": "m", "outcome": "tokenized", "reason": ""}
    assert value("tokenext_requests_total", labels) == 2
    labels = {"model": "other", "outcome": "passed", "reason": "unknown_model"}
    assert value("tokenext_requests_total", labels) == 1
    assert value("tokenext_handoffs_total", {"model": "m"}) == 2


def test_stages_and_prompt_lengths_are_distributions(registry):
    observer = PrometheusObserver(registry)
    observer.exchanged(TOKENIZED)
    value = registry.get_sample_value
    assert value("tokenext_stage_duration_seconds_count", {"stage": "render"}) == 1
    assert value("tokenext_stage_duration_seconds_sum", {"stage": "render"}) == pytest.approx(0.002)
    assert value("tokenext_stage_duration_seconds_count", {"stage": "encode"}) == 0
    assert value("tokenext_prompt_tokens_sum", {"model": "m"}) == 100


def test_what_passed_has_no_prompt_length(registry):
    PrometheusObserver(registry).exchanged(ExchangeRecord("m", Outcome.PASSED, "deadline"))
    assert registry.get_sample_value("tokenext_prompt_tokens_count", {"model": "m"}) is None


def test_reloads_are_counted_from_zero(registry):
    observer = PrometheusObserver(registry)
    value = registry.get_sample_value
    assert value("tokenext_reloads_total", {"outcome": "failed"}) == 0
    observer.reload_failed("why")
    observer.reloaded(Catalog([fake_model("m")]))
    assert value("tokenext_reloads_total", {"outcome": "failed"}) == 1
    assert value("tokenext_reloads_total", {"outcome": "loaded"}) == 1


def test_the_models_in_use_are_shown_with_their_engine(registry):
    observer = PrometheusObserver(registry)
    observer.show_models(Catalog([fake_model("gone")]))
    observer.reloaded(Catalog([fake_model("m")]))
    shown = {"engine": "fake", "profile": "plain", "handoff": "dynamo"}
    assert registry.get_sample_value("tokenext_model_info", {"model": "m", **shown}) == 1
    assert registry.get_sample_value("tokenext_model_info", {"model": "gone", **shown}) is None


def test_the_queue_is_read_when_it_is_scraped(registry):
    held = [0]
    PrometheusObserver(registry).watch_queue(lambda: held[0])
    held[0] = 5
    assert registry.get_sample_value("tokenext_queue_requests") == 5


def test_the_prefix_cache_is_read_when_it_is_scraped(registry):
    seen = PrefixSnapshot()
    PrometheusObserver(registry).watch_prefix_cache(lambda: seen)
    value = registry.get_sample_value
    assert value("tokenext_prefix_cache_lookups_total", {"outcome": "hit"}) == 0
    seen = PrefixSnapshot(1, 2, 3, 40, 50, 6, 7, 80, 90)
    for outcome, count in {"hit": 1, "partial": 2, "miss": 3}.items():
        assert value("tokenext_prefix_cache_lookups_total", {"outcome": outcome}) == count
    for source, count in {"cache": 40, "engine": 50}.items():
        assert value("tokenext_prefix_cache_tokens_total", {"source": source}) == count
    assert value("tokenext_prefix_cache_evictions_total") == 6
    assert value("tokenext_prefix_cache_entries") == 7
    assert value("tokenext_prefix_cache_bytes") == 80
    assert value("tokenext_prefix_cache_budget_bytes") == 90


VERIFIED = fake_model("m", verification=Verification("http://e", OracleKind.DYNAMO, "m", None, True))


def test_rounds_with_an_engine_are_counted_from_zero(registry):
    observer = PrometheusObserver(registry)
    observer.show_models(Catalog([VERIFIED, fake_model("other")]))
    value = registry.get_sample_value
    labels = {"model": "m", "finding": "inconclusive"}
    assert value("tokenext_parity_rounds_total", labels) == 0
    observer.verified(ParityRecord("m", Standing.UNKNOWN, Standing.UNKNOWN, Report((), "gone")))
    assert value("tokenext_parity_rounds_total", labels) == 1
    assert value("tokenext_parity_mismatch", {"model": "m"}) == 0
    assert value("tokenext_parity_mismatch", {"model": "other"}) is None


def test_a_mismatch_is_shown_while_it_lasts_also_over_a_reload(registry):
    observer = PrometheusObserver(registry)
    observer.verified(ParityRecord("m", Standing.CLEAN, Standing.MISMATCH, Report(())))
    value = registry.get_sample_value
    assert value("tokenext_parity_mismatch", {"model": "m"}) == 1
    observer.reloaded(Catalog([VERIFIED]).doubting({"m"}))
    assert value("tokenext_parity_mismatch", {"model": "m"}) == 1
    assert VERIFIED.doubt is not InexactReason.PARITY
    observer.verified(ParityRecord("m", Standing.MISMATCH, Standing.CLEAN, Report(())))
    assert value("tokenext_parity_mismatch", {"model": "m"}) == 0
