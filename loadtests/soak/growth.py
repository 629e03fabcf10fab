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

Point = tuple[int, float]  # requests so far, and megabytes


@dataclass(frozen=True, slots=True)
class Growth:
    """`share`: of the mean, from the first reading to the last."""

    mb_per_1000_requests: float
    share: float


def growth_of(points: Sequence[Point]) -> Growth:
    """Of readings in the order of time; none where there are too few to tell."""
    slope, low = min(
        (_slope(each), mean(mb for _, mb in each) if each else 1.0) for each in (points, _troughs(points))
    )
    requests = points[-1][0] - points[0][0] if points else 0
    return Growth(slope * 1e3, slope * requests / low)


def _slope(points: Sequence[Point]) -> float:
    if len({requests for requests, _ in points}) < 2:
        return 0.0
    return linear_regression(*zip(*points, strict=True)).slope


def _troughs(points: Sequence[Point]) -> list[Point]:
    windows = min(WINDOWS, len(points) // 2)
    edges = [len(points) * number // windows for number in range(windows + 1)] if windows else []
    return [min(points[start:end], key=lambda point: point[1]) for start, end in pairwise(edges)]
