"""Pickers: order, ties, and chances."""

from collections import Counter
from random import Random

import pytest

from epp_adapter.routing.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker


def pickers(count: int):
    return [
        MaxScorePicker(count),
        RandomPicker(count, Random(1)),
        WeightedRandomPicker(count, Random(1)),
    ]


@pytest.mark.parametrize("picker", pickers(2), ids=lambda picker: type(picker).__name__)
class TestEveryPicker:
    def test_it_names_distinct_candidates_and_no_more_than_asked(self, picker):
        for _ in range(20):
            order = picker.order([0.1, 0.9, 0.0, 0.9])
            assert len(order) == len(set(order)) == 2

    def test_with_fewer_candidates_it_names_them_all(self, picker):
        assert picker.order([0.0]) == [0]

    def test_without_candidates_it_names_nobody(self, picker):
        assert picker.order([]) == []


class TestMaxScore:
    def test_the_highest_score_comes_first_then_fallbacks_by_score(self):
        assert MaxScorePicker(3).order([0.2, 0.9, 0.5, 0.1]) == [1, 2, 0]

    def test_equals_are_taken_in_turn(self):
        picker = MaxScorePicker(1)
        assert [picker.order([0.5, 0.5, 0.5])[0] for _ in range(6)] == [0, 1, 2, 0, 1, 2]

    def test_turns_never_prefer_a_lower_score(self):
        picker = MaxScorePicker(1)
        assert {picker.order([0.5, 0.6, 0.6])[0] for _ in range(6)} == {1, 2}

    def test_two_pickers_with_the_same_history_choose_alike(self):
        one, other = MaxScorePicker(2), MaxScorePicker(2)
        scores = [[1.0, 1.0, 0.5], [0.5, 0.5], [1.0] * 5]
        assert [one.order(each) for each in scores] == [other.order(each) for each in scores]


def first_choices(picker, scores, times=4000) -> Counter:
    return Counter(picker.order(scores)[0] for _ in range(times))


def test_random_ignores_the_scores():
    chosen = first_choices(RandomPicker(1, Random(7)), [0.0, 1.0])
    assert chosen[0] / 4000 == pytest.approx(0.5, abs=0.04)


def test_weighted_random_chooses_in_proportion_to_the_scores():
    chosen = first_choices(WeightedRandomPicker(1, Random(7)), [1.0, 3.0, 0.0])
    assert chosen[1] / 4000 == pytest.approx(0.75, abs=0.03)
    assert chosen[2] == 0


def test_weighted_random_is_uniform_where_all_score_0():
    chosen = first_choices(WeightedRandomPicker(1, Random(7)), [0.0, 0.0])
    assert chosen[0] / 4000 == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("kind", [RandomPicker, WeightedRandomPicker])
def test_the_same_seed_repeats_the_same_picks(kind):
    one, other = kind(2, Random(3)), kind(2, Random(3))
    scores = [0.2, 0.4, 0.6]
    assert [one.order(scores) for _ in range(9)] == [other.order(scores) for _ in range(9)]
