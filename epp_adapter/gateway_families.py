"""Series with labels for the hot path, and showing one of them under two names.

prometheus_client's own histogram looks at its buckets one by one and takes a lock for each value, 2 us, where
a request has a dozen values: these cost a look-up and a bisection. They are written by one thread, the event
loop's, and read by any: a reader sees each value whole, and the sum of a histogram perhaps one value ahead of
its count.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["HistogramFamily", "Labels", "NumberFamily", "Shown", "ShownTwice"]

# Values, in the order of the family's label names.
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """`suffix` is what the series has beyond its family's name."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    number: float


class Family(Protocol):
    @property
    def kind(self) -> str:
        """counter, gauge or histogram."""
        ...

    def values(self) -> Iterator[Value]: ...


class NumberFamily:
    """A counter or a gauge."""

    def __init__(self, kind: str, label_names: Sequence[str] = ()) -> None:
        self.kind: Final = kind
        self._names: Final = tuple(label_names)
        self._suffix: Final = "_total" if kind == "counter" else ""
        self._numbers: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        self._numbers[labels] = self._numbers.get(labels, 0.0) + amount

    def values(self) -> Iterator[Value]:
        for labels, number in list(self._numbers.items()):
            yield Value(self._suffix, tuple(zip(self._names, labels, strict=True)), number)


class HistogramFamily:
    """`bounds` are the buckets' upper ends, ascending, without the infinite one."""

    kind: Final = "histogram"

    def __init__(self, bounds: Sequence[float], label_names: Sequence[str] = ()) -> None:
        self._names: Final = tuple(label_names)
        self._bounds: Final = tuple(bounds)
        self._ends: Final = tuple(_end(bound) for bound in (*self._bounds, float("inf")))
        # Of each set of labels: how many are in each bucket, not in those below it; and the sum.
        self._counts: dict[Labels, list[float]] = {}
        if not self._names:
            self._of(())  # the one there is, as 0 from the start

    def observe(self, labels: Labels, value: float) -> None:
        counts = self._of(labels)
        counts[bisect_left(self._bounds, value)] += 1
        counts[-1] += value

    def add(self, labels: Labels, counts: Sequence[int], total: float) -> None:
        """Many values at once: how many fall into each bucket, the infinite one last, and their sum."""
        known = self._of(labels)
        for bucket, count in enumerate(counts):
            known[bucket] += count
        known[-1] += total

    def _of(self, labels: Labels) -> list[float]:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0.0] * (len(self._ends) + 1)
        return counts

    def values(self) -> Iterator[Value]:
        for labels, counting in list(self._counts.items()):
            *counts, total = list(counting)
            named = tuple(zip(self._names, labels, strict=True))
            so_far = 0.0
            for end, count in zip(self._ends, counts, strict=True):
                so_far += count
                yield Value("_bucket", (*named, ("le", end)), so_far)
            yield Value("_count", named, so_far)
            yield Value("_sum", named, total)


def _end(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]  # prometheus_client has no type for it


@dataclass(frozen=True, slots=True)
class Shown:
    """A family under its name, and under an older name (None: it has none) with the older labels, over the
    others of which it is summed.
    """

    name: str
    text: str
    family: Family
    old_name: str | None = None
    old_labels: tuple[str, ...] = ()

    def metrics(self) -> Iterator[Metric]:
        values = list(self.family.values())
        yield self._metric(self.name, values)
        if self.old_name is not None:
            yield self._metric(self.old_name, self._summed(values))

    def _metric(self, name: str, values: Iterable[Value]) -> Metric:
        metric = Metric(name, self.text, self.family.kind)
        for value in values:
            metric.add_sample(name + value.suffix, dict(value.labels), value.number)
        return metric

    def _summed(self, values: Iterable[Value]) -> list[Value]:
        kept = (*self.old_labels, "le")
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for value in values:
            labels = tuple(pair for pair in value.labels if pair[0] in kept)
            sums[value.suffix, labels] = sums.get((value.suffix, labels), 0.0) + value.number
        return [Value(suffix, labels, number) for (suffix, labels), number in sums.items()]


class ShownTwice(Collector):
    """Under its own name, and the older one."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self._shown: Final = tuple(shown)

    def collect(self) -> Iterator[Metric]:
        for each in self._shown:
            yield from each.metrics()
