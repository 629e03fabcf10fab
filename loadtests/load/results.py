"""What came of a run: locust's tables read back, with everything that is needed to repeat it."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from loadtests.bench.results import machine

__all__ = ["Report", "ResultsError", "Series", "read"]

_PERCENTILES = ("50%", "95%", "99%")


class ResultsError(ValueError):
    """A folder without locust's tables; the message names the missing one."""


@dataclass(frozen=True, slots=True)
class Series:
    """Milliseconds of one kind of thing: a request to its end, `ttft` or `itl` of a workload."""

    kind: str
    name: str
    count: int
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @property
    def is_request(self) -> bool:
        return self.kind not in ("ttft", "itl")


@dataclass(frozen=True, slots=True)
class Report:
    """`failures`: how often what went wrong, in locust's words."""

    parameters: Mapping[str, object]
    series: tuple[Series, ...]
    failures: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether something was answered and nothing failed."""
        return not self.failures and any(each.count for each in self.series if each.is_request)

    def write(self, path: Path) -> None:
        document = {
            "machine": machine(),
            "parameters": dict(self.parameters),
            "series": [asdict(each) for each in self.series],
            "failures": dict(self.failures),
        }
        path.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")

    def table(self) -> Table:
        table = Table("", "", "count", "failed", "p50 ms", "p95 ms", "p99 ms", title="What came of it")
        for each in self.series:
            numbers = (f"{value:,.1f}" for value in (each.p50_ms, each.p95_ms, each.p99_ms))
            failed = f"[red]{each.failed}" if each.failed else "0"
            table.add_row(
                each.name, "end" if each.is_request else each.kind, str(each.count), failed, *numbers
            )
        for what, times in self.failures.items():
            table.add_row(what[:60], "[red]failure", str(times), "", "", "", "")
        return table

    def summary(self) -> str:
        requests = [each for each in self.series if each.is_request]
        count, failed = (sum(getattr(each, of) for each in requests) for of in ("count", "failed"))
        seconds = float(str(self.parameters["seconds"]))
        firsts = [each for each in self.series if each.kind == "ttft" and each.count]
        first = f", first token p50 {_middle(firsts):,.0f} ms" if firsts else ""
        return f"load: {count} requests, {failed} failed, {count / seconds:.1f}/s{first}"


def _middle(series: list[Series]) -> float:
    """About the median of all: that of each kind, weighed by how many there were."""
    return sum(each.p50_ms * each.count for each in series) / sum(each.count for each in series)


def read(folder: Path, parameters: Mapping[str, object]) -> Report:
    """Read `locust_stats.csv` and `locust_failures.csv` of a folder. Raises ResultsError."""
    series = tuple(
        Series(
            kind=row["Type"],
            name=row["Name"],
            count=int(row["Request Count"]),
            failed=int(row["Failure Count"]),
            **dict(
                zip(
                    ("p50_ms", "p95_ms", "p99_ms"), (_number(row[each]) for each in _PERCENTILES), strict=True
                )
            ),
        )
        for row in _rows(folder / "locust_stats.csv")
        if row["Name"] != "Aggregated"  # over series that have nothing in common
    )
    failures: dict[str, int] = {}
    for row in _rows(folder / "locust_failures.csv"):
        what = f"{row['Name']}: {row['Error']}"
        failures[what] = failures.get(what, 0) + int(row["Occurrences"])
    return Report(parameters, series, failures)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror}") from None


def _number(text: str) -> float:
    return 0.0 if text == "N/A" else float(text)
