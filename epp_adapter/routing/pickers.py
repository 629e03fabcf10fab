"""Pickers: from scores to an order of candidates, best first."""

import heapq
from collections.abc import Sequence
from random import Random
from typing import Protocol

__all__ = ["MaxScorePicker", "Picker", "RandomPicker", "WeightedRandomPicker"]


class Picker(Protocol):
    """Orders candidates by their scores."""

    def order(self, scores: Sequence[float]) -> list[int]:
        """Indices of distinct candidates, the choice first, then fallbacks; at most as many as configured.

        Empty only where `scores` is.
        """
        ...


class MaxScorePicker:
    """max-score-picker: highest score first.

    Equal scores are taken in turn: the n-th pick prefers, among equals, whoever comes first from candidate
    n mod count on. So the choice depends on scores and the number of earlier picks, and on nothing else.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._picks = 0

    def order(self, scores: Sequence[float]) -> list[int]:
        total = len(scores)
        if not total:
            return []
        first = self._picks % total
        self._picks += 1
        # Among equal scores `nlargest` keeps the order it is given.
        in_turn = (*range(first, total), *range(first))
        return heapq.nlargest(self._count, in_turn, key=scores.__getitem__)


class RandomPicker:
    """random-picker: any order, whatever the scores."""

    def __init__(self, count: int, random: Random) -> None:
        self._count = count
        self._random = random

    def order(self, scores: Sequence[float]) -> list[int]:
        return self._random.sample(range(len(scores)), min(self._count, len(scores)))


class WeightedRandomPicker:
    """weighted-random-picker: drawn without replacement, each draw in proportion to the scores.

    Efraimidis and Spirakis, A-Res: the largest u**(1/score). Candidates that score 0 come last; where all do,
    the order is random.
    """

    def __init__(self, count: int, random: Random) -> None:
        self._count = count
        self._random = random

    def order(self, scores: Sequence[float]) -> list[int]:
        keys = [
            (self._random.random() ** (1.0 / score) if score > 0 else -self._random.random())
            for score in scores
        ]
        return heapq.nlargest(self._count, range(len(scores)), key=keys.__getitem__)
