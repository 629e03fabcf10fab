"""Scorers: pure functions, their formulas and their edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.routing.load import EndpointLoad
from epp_adapter.routing.scorers import (
    active_request_scores,
    affinity_scores,
    kv_cache_utilization_scores,
    lora_affinity_scores,
    prefix_scores,
    queue_scores,
    running_requests_scores,
)


def load(**fields) -> EndpointLoad:
    return EndpointLoad(**({"waiting": 0, "running": 0, "kv_utilization": 0.0, "updated_at": 0.0} | fields))


@pytest.mark.parametrize("score", [queue_scores, running_requests_scores])
class TestQueuesAndRunningRequests:
    def test_the_shortest_scores_1_the_longest_0_and_the_rest_between(self, score):
        assert score([3, 0, 10]) == [0.7, 1.0, 0.0]

    def test_equal_ones_all_score_1(self, score):
        assert score([4, 4]) == [1.0, 1.0]

    def test_one_without_metrics_scores_0_beside_one_with(self, score):
        assert score([None, 7]) == [0.0, 1.0]
        assert score([None, 7, 5]) == [0.0, 0.0, 1.0]

    def test_without_any_metrics_nobody_is_preferred(self, score):
        assert score([None, None]) == [1.0, 1.0]

    def test_nobody_scores_nothing(self, score):
        assert score([]) == []


class TestKvCacheUtilization:
    def test_the_free_part_is_the_score(self):
        assert kv_cache_utilization_scores([0.25, 1.0, 0.0]) == [0.75, 0.0, 1.0]

    def test_a_gauge_that_overshoots_stays_in_range(self):
        assert kv_cache_utilization_scores([1.2, -0.1]) == [0.0, 1.0]

    def test_one_without_metrics_scores_0_and_all_without_score_1(self):
        assert kv_cache_utilization_scores([None, 0.5]) == [0.0, 0.5]
        assert kv_cache_utilization_scores([None, None]) == [1.0, 1.0]


class TestActiveRequests:
    def test_idle_scores_1_and_the_busiest_0(self):
        assert active_request_scores([0, 2, 4]) == [1.0, 0.5, 0.0]

    def test_where_nothing_runs_all_score_1(self):
        assert active_request_scores([0, 0]) == [1.0, 1.0]


class TestLoraAffinity:
    def test_active_fits_waiting_full_in_that_order(self):
        loads = [
            load(active_adapters=frozenset({"a"}), max_adapters=1),
            load(active_adapters=frozenset({"b"}), max_adapters=2),
            load(active_adapters=frozenset({"b"}), waiting_adapters=frozenset({"a"}), max_adapters=2),
            load(active_adapters=frozenset({"b", "c"}), max_adapters=2),
            None,
        ]
        assert lora_affinity_scores(loads, "a") == [1.0, 0.8, 0.6, 0.0, 0.0]

    def test_an_endpoint_without_lora_cannot_load_one(self):
        assert lora_affinity_scores([load()], "a") == [0.0]


class TestAffinity:
    def test_the_wanted_endpoint_scores_1_and_no_other(self):
        assert affinity_scores(["a", "b"], "b") == [0.0, 1.0]

    def test_without_a_wish_all_score_0(self):
        assert affinity_scores(["a", "b"], None) == [0.0, 0.0]


class TestPrefix:
    def test_the_score_is_the_share_of_the_prompts_blocks(self):
        assert prefix_scores([(0, 0), (3, 3), (6, 6)], 6) == [0.0, 0.5, 1.0]

    def test_a_block_in_a_lower_tier_counts_less(self):
        assert prefix_scores([(2, 6)], 10) == [pytest.approx(0.52)]

    def test_a_prompt_without_a_full_block_matches_nobody(self):
        assert prefix_scores([(0, 0)], 0) == [0.0]

    def test_the_length_weight_prefers_the_longer_match_of_equal_share(self):
        short = prefix_scores([(5, 5)], 10, block_size=16, length_weight=0.5, max_model_len=1600)
        long = prefix_scores([(50, 50)], 100, block_size=16, length_weight=0.5, max_model_len=1600)
        assert short == [pytest.approx(0.5 * 0.05**2 + 0.25)]
        assert long == [pytest.approx(0.5 * 0.5**2 + 0.25)]


counts = st.lists(st.none() | st.integers(0, 10**6), max_size=20)
shares = st.lists(st.none() | st.floats(-2, 2), max_size=20)


@given(counts, shares, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_every_score_is_in_range_and_stands_for_its_candidate(numbers, parts, blocks):
    matched = [(min(pair), max(pair)) for pair in blocks]
    answers = {
        "queue": (queue_scores(numbers), numbers),
        "running": (running_requests_scores(numbers), numbers),
        "active": (active_request_scores([number or 0 for number in numbers]), numbers),
        "kv": (kv_cache_utilization_scores(parts), parts),
        "prefix": (prefix_scores(matched, 50, block_size=16, length_weight=0.3), matched),
    }
    for name, (scores, given_values) in answers.items():
        assert len(scores) == len(given_values), name
        assert all(0.0 <= score <= 1.0 for score in scores), name
