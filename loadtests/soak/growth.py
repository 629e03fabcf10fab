"""Whether memory grows, told apart from memory that comes and goes.

A process holds what is under way, so its memory follows the largest bodies in flight: a spike says nothing,
nor does a higher one. What leaks is never given back, so it lifts all readings and the troughs, too: the
lowest reading in each of some windows of time. Growth is the lesser of both slopes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression, mean
from typing import Final

__all__ = ["Growth", "growth_of"]

WINDOWS: Final = 8
FEWEST: Final = 3  # readings through which a line says anything

Point = tuple[int, float]  # requests so far, and megabytes


@dataclass(frozen=True, slots=True)
class Growth:
    """`share`: of the mean, from the first reading to the last. `error`, its standard error, says how much of
    that a run of this length may owe to chance: a longer one tells more. It excuses nothing.
    """

    mb_per_1000_requests: float
    share: float
    error: float

    def exceeds(self, bound: float) -> bool:
        return self.share > bound


def growth_of(points: Sequence[Point]) -> Growth:
    """Of readings in the order of time; none where there are too few to tell."""
    return min((_growth(points), _growth(_troughs(points))), key=lambda growth: growth.share)


def _growth(points: Sequence[Point]) -> Growth:
    if len(points) < FEWEST or len({requests for requests, _ in points}) < FEWEST:
        return Growth(0.0, 0.0, 0.0)
    requests, memory = zip(*points, strict=True)
    line = linear_regression(requests, memory)
    residues = sum((mb - line.slope * at - line.intercept) ** 2 for at, mb in points)
    spread = sum((at - mean(requests)) ** 2 for at in requests)
    error = (residues / (len(points) - 2) / spread) ** 0.5
    over = (requests[-1] - requests[0]) / mean(memory)
    return Growth(line.slope * 1e3, line.slope * over, error * over)


def _troughs(points: Sequence[Point]) -> list[Point]:
    windows = min(WINDOWS, len(points) // 2)
    edges = [len(points) * number // windows for number in range(windows + 1)] if windows else []
    return [min(points[start:end], key=lambda point: point[1]) for start, end in pairwise(edges)]
