"""The pictures of a report, each as the bytes of a PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from loadtests.report.figures import Figures

__all__ = ["draw"]

# Okabe and Ito's colours, which the colour-blind tell apart, and a line style each for print.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_STYLES: Final = ("-", "--", "-.", ":")
_SIZE: Final = (8.0, 4.2)


def draw(targets: Sequence[Figures]) -> Mapping[str, bytes]:
    """By name; a picture for which nothing was measured is left out."""
    answered = [target for target in targets if target.requests > target.failed]
    wanted: tuple[tuple[str, Callable[[Axes, Sequence[Figures]], None], Sequence[Figures]], ...] = (
        ("first-token", _first_tokens, [each for each in answered if each.firsts]),
        ("by-length", _by_length, [each for each in answered if each.by_length]),
        ("over-time", _over_time, [each for each in answered if each.over_time]),
        ("hit-rate", _hit_rates, [each for each in answered if each.hit_rate is not None]),
        ("cpu", _cpu, [each for each in answered if each.cpu_ms]),
        ("memory", _memory, [each for each in targets if each.memory_mb]),
        ("failures", _failures, [each for each in targets if each.failures]),
    )
    return {name: _picture(panel, having) for name, panel, having in wanted if having}


def _picture(panel: Callable[[Axes, Sequence[Figures]], None], targets: Sequence[Figures]) -> bytes:
    figure, axis = plt.subplots(figsize=_SIZE)
    panel(axis, targets)
    axis.grid(visible=True, which="major", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=100, metadata={"Software": None})
    plt.close(figure)
    return written.getvalue()


def _plain_numbers(axis: Axes, *, which: str) -> None:
    """A logarithmic axis with 20 and 300 on it, and not with powers of ten."""
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    along = axis.xaxis if which == "x" else axis.yaxis
    along.set_major_formatter(plain)
    along.set_minor_formatter(plain)
    along.set_tick_params(which="minor", labelsize=7)


def _look(number: int) -> dict[str, str]:
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _STYLES[number % len(_STYLES)]}


def _first_tokens(axis: Axes, targets: Sequence[Figures]) -> None:
    for number, target in enumerate(targets):
        shares = [(rank + 1) / len(target.firsts) for rank in range(len(target.firsts))]
        axis.plot([first * 1e3 for first in target.firsts], shares, label=target.name, **_look(number))
    axis.set(
        xscale="log", xlabel="ms (log)", ylabel="share of requests", title="Time to first token", ylim=(0, 1)
    )
    _plain_numbers(axis, which="x")
    axis.legend(fontsize=8)


def _by_length(axis: Axes, targets: Sequence[Figures]) -> None:
    edges = sorted({each.tokens for target in targets for each in target.by_length})
    for number, target in enumerate(targets):
        at = [edges.index(each.tokens) for each in target.by_length]
        middles = [each.first_p50 * 1e3 for each in target.by_length]
        axis.plot(at, middles, marker="o", label=target.name, **_look(number))
    axis.set_xticks(range(len(edges)), [f"{edge // 1000}k+" if edge else "0+" for edge in edges])
    axis.set(yscale="log", xlabel="prompt, tokens", ylabel="ms (log)", title="Time to first token, median")
    _plain_numbers(axis, which="y")
    axis.legend(fontsize=8)


def _over_time(axis: Axes, targets: Sequence[Figures]) -> None:
    for number, target in enumerate(targets):
        at = [each.at for each in target.over_time]
        axis.plot(at, [each.p95 * 1e3 for each in target.over_time], label=target.name, **_look(number))
    axis.set(
        xlabel="seconds of each target's own rounds",
        ylabel="ms",
        title="Request to its end over time, 95th percentile",
        ylim=(0, None),
    )
    axis.legend(fontsize=8)


def _hit_rates(axis: Axes, targets: Sequence[Figures]) -> None:
    names = [target.name for target in targets]
    bars = axis.barh(names, [100 * (target.hit_rate or 0.0) for target in targets], color=_COLOURS[0])
    axis.bar_label(bars, fmt="%.0f %%", padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="% of prompt tokens that the worker had cached", title="Prefix hits", xlim=(0, 100))


def _cpu(axis: Axes, targets: Sequence[Figures]) -> None:
    _stacked(axis, targets, lambda target: target.cpu_ms)
    axis.set(xlabel="CPU ms per request", title="CPU by process")


def _memory(axis: Axes, targets: Sequence[Figures]) -> None:
    _stacked(axis, targets, lambda target: target.memory_mb)
    axis.set(xlabel="MB", title="Resident memory at the end, by process")


def _stacked(axis: Axes, targets: Sequence[Figures], of: Callable[[Figures], Mapping[str, float]]) -> None:
    names = [target.name for target in targets]
    left = [0.0] * len(names)
    kinds = dict.fromkeys(kind for target in targets for kind in of(target))
    for number, kind in enumerate(kinds):
        widths = [of(target).get(kind, 0.0) for target in targets]
        axis.barh(names, widths, left=left, label=kind, color=_COLOURS[number % len(_COLOURS)])
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.bar_label(
        axis.containers[-1],
        labels=[f"{total:,.0f}" if total >= 100 else f"{total:.3g}" for total in left],
        padding=3,
    )
    axis.margins(x=0.12)
    axis.invert_yaxis()
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _failures(axis: Axes, targets: Sequence[Figures]) -> None:
    _stacked(axis, targets, lambda target: target.failures)
    axis.set(xlabel="requests", title="Failures by kind")
