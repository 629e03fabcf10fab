"""A run's figures in a page for people: tables between marks, so that no figure is copied by hand.

A page has `<!-- bench: NAME -->` before a table and `<!-- bench end -->` behind it; NAME is one of TABLES.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["TABLES", "PageError", "write"]

Document = Mapping[str, Any]

_MARKED: Final = re.compile(r"(<!-- bench: (?P<name>[a-z ]+) -->\n).*?(<!-- bench end -->)", re.DOTALL)


class PageError(ValueError):
    """A page that asks for a table that there is not; the message says which there are."""


def write(page: Path, document: Document) -> None:
    """Put the tables of a bench.json into the page; one that was not measured is left. Raises PageError."""

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in TABLES:
            raise PageError(f"{page}: no table {name!r}; there are {', '.join(sorted(TABLES))}")
        key, render = TABLES[name]
        measured = document["ratios"] if key == "ratios" else document["measurements"].get(key)
        return f"{found[1]}\n{render(measured)}\n\n{found[3]}" if measured else found[0]

    text = _MARKED.sub(table, page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bounds(ratios: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, ratio in ratios.items():
        sign = "<=" if ratio["better"] == "lower" else ">="
        unit = "" if ratio["unit"] == "x" else f" {ratio['unit']}"
        mark = "holds" if ratio["holds"] else "**missed**"
        value = f"{ratio['value']:.3g}" if ratio["value"] < 1000 else f"{ratio['value']:,.0f}"
        rows.append([name, f"{value}{unit}", f"{sign} {ratio['must']:g}", f"{sign} {ratio['aim']:g}", mark])
    return _markdown(["bound", "value", "must", "aim", ""], rows)


def _chain(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The median of every contender, and what the two services burn beside empty ones."""
    contenders = list(next(iter(table.values())))
    rows = []
    for workload, series in table.items():
        cpu = {name: each["cpu_ms_per_request"] for name, each in series.items()}
        pairs = [
            f"{cpu['empty'][part]:.1f} / {cpu['ours'][part]:.1f}" for part in ("tokenext", "epp-adapter")
        ]
        rows.append([workload, *(f"{series[name]['p50_ms']:.1f}" for name in contenders), *pairs])
    header = ["workload", *contenders, "tokenext CPU empty / ours", "picker CPU empty / ours"]
    return _markdown(header, rows)


def _carrying(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = []
    for size, series in table.items():
        empty, carrying = series["empty"], series["carrying"]
        ratio = carrying["p50_ms"] / empty["p50_ms"]
        rows.append([size, f"{empty['p50_ms']:.1f}", f"{carrying['p50_ms']:.1f}", f"{ratio:.2f}"])
    return _markdown(["tokens", "two empty", "two empty that carry the ids", "ratio"], rows)


def _dynamo(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = [
        [workload, who, f"{each['first_p50_ms']:.1f}", f"{_served_by(each['cpu_ms_per_request']):.1f}"]
        for workload, series in table.items()
        for who, each in series.items()
    ]
    return _markdown(["workload", "who", "first token", "CPU"], rows)


def _served_by(cpu: Mapping[str, float]) -> float:
    """Of all processes but the engines."""
    return sum(value for name, value in cpu.items() if name != "worker")


def _engines(table: Mapping[str, Mapping[str, float]]) -> str:
    engines = list(next(iter(table.values())))
    rows = [[prompt, *(f"{figures[each]:,.0f}" for each in engines)] for prompt, figures in table.items()]
    return _markdown(["prompt", *engines], rows)


def _stages(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    stages = list(next(iter(next(iter(table.values())).values())))
    rows = [
        [workload, setup, *(f"{taken[stage]:,.0f}" for stage in stages)]
        for workload, setups in table.items()
        for setup, taken in setups.items()
    ]
    return _markdown(["workload", "template", *stages], rows)


# By name: what it shows of bench.json, and how.
TABLES: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "bounds": ("ratios", _bounds),
    "chain": ("chain", _chain),
    "carrying": ("carrying", _carrying),
    "dynamo": ("against_dynamo", _dynamo),
    "engines": ("tokenize_us", _engines),
    "stages": ("stages_us", _stages),
}
