"""What came of a run: its series and failures, with everything that is needed to repeat it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from rich.table import Table

from loadtests.bench.results import machine
from loadtests.load.samples import Sample

__all__ = ["PERCENTS", "Report", "Series", "of", "percentile"]

PERCENTS: Final = (50, 95, 99)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below or at which `percent` of the values are (nearest rank); None of none."""
    if not values:
        return None
    rank = -int(-percent * len(values) // 100)
    return sorted(values)[max(0, min(len(values), rank) - 1)]


@dataclass(frozen=True, slots=True)
class Series:
    """Of one workload: `end` is a request to its end, `ttft` the first token, `itl` the time between pieces.

    `count` has those that failed and those that the client left, `ms` (by percent) has not; `ms` is empty
    where there is nothing.
    """

    kind: Literal["end", "ttft", "itl"]
    name: str
    count: int
    failed: int
    ms: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Report:
    """`failures`: how often what went wrong, in words of ours. `seconds`: how long it was sent."""

    parameters: Mapping[str, object]
    seconds: float
    series: tuple[Series, ...]
    failures: Mapping[str, int]

    @property
    def requests(self) -> int:
        return sum(each.count for each in self.series if each.kind == "end")

    @property
    def clean(self) -> bool:
        """Whether something was answered and nothing failed."""
        return not self.failures and self.requests > 0

    def write(self, path: Path) -> None:
        document = {
            "machine": machine(),
            "parameters": dict(self.parameters),
            "series": [asdict(each) for each in self.series],
            "failures": dict(self.failures),
        }
        path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")

    def table(self) -> Table:
        columns = (f"p{percent} ms" for percent in PERCENTS)
        table = Table("", "", "count", "failed", *columns, title="What came of it")
        for each in self.series:
            numbers = (f"{each.ms[percent]:,.1f}" if each.ms else "" for percent in PERCENTS)
            failed = f"[red]{each.failed}" if each.failed else "0"
            table.add_row(each.name, each.kind, str(each.count), failed, *numbers)
        for what, times in self.failures.items():
            table.add_row(what[:60], "[red]failure", str(times), "", "", "", "")
        return table

    def summary(self) -> str:
        failed = sum(self.failures.values())
        firsts = [each for each in self.series if each.kind == "ttft" and each.ms]
        first = f", first token p50 {_middle(firsts):,.0f} ms" if firsts else ""
        rate = self.requests / self.seconds
        return f"load: {self.requests} requests, {failed} failed, {rate:.1f}/s{first}"


def _middle(series: list[Series]) -> float:
    """About the median of all: that of each kind, weighed by how many there were."""
    return sum(each.ms[50] * each.count for each in series) / sum(each.count for each in series)


def of(samples: Sequence[Sample], parameters: Mapping[str, object], *, seconds: float) -> Report:
    series: list[Series] = []
    for name in sorted({sample.name for sample in samples}):
        named = [sample for sample in samples if sample.name == name]
        answered = [sample for sample in named if not sample.failure]
        ends = [sample.seconds * 1e3 for sample in answered if not sample.left]
        firsts = [sample.first * 1e3 for sample in answered if sample.first is not None]
        gaps = [gap / 1e3 for sample in answered for gap in sample.gaps_us]
        series.append(Series("end", name, len(named), len(named) - len(answered), _percentiles(ends)))
        if firsts:
            series.append(Series("ttft", name, len(firsts), 0, _percentiles(firsts)))
        if gaps:
            series.append(Series("itl", name, len(gaps), 0, _percentiles(gaps)))
    failures = Counter(f"{sample.name}: {sample.failure}" for sample in samples if sample.failure)
    return Report(parameters, seconds, tuple(series), dict(failures))


def _percentiles(values: Sequence[float]) -> dict[int, float]:
    return {
        percent: round(found, 3) for percent in PERCENTS if (found := percentile(values, percent)) is not None
    }
