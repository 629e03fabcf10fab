"""The picture of a run."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["draw"]

_COLUMNS = 2  # more cannot be read in a page


def draw(measurements: dict[str, Any], path: Path) -> None:
    """Whatever was measured, a panel each; no picture where nothing of it was."""
    panels = [
        (key, panel)
        for key, panel in (
            ("tokenize_us", _engines),
            ("stages_us", _stages),
            ("chain", _chain),
            ("against_dynamo", _dynamo),
            ("memory_mb", _memory),
        )
        if key in measurements
    ]
    if not panels:
        path.unlink(missing_ok=True)
        return
    rows = -(-len(panels) // _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    figure, axes = plt.subplots(rows, columns, figsize=(7 * columns, 5.5 * rows), squeeze=False)
    for axis, (key, panel) in zip(axes.flat, panels, strict=False):
        panel(axis, measurements[key])
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _engines(axis: Axes, table: dict[str, dict[str, float]]) -> None:
    labels = list(table)
    for name in next(iter(table.values())):
        axis.plot(labels, [table[label][name] for label in labels], marker="o", label=name)
    axis.set(yscale="log", ylabel="microseconds", title="Tokenizing one prompt (median)")
    axis.tick_params(axis="x", rotation=45)
    axis.grid(visible=True, which="both", alpha=0.3)
    axis.legend()


def _stages(axis: Axes, table: dict[str, dict[str, dict[str, float]]]) -> None:
    labels = [label for label in table if label.startswith("multi-turn")]
    stages = list(next(iter(table.values()))["sandboxed"])
    left = [0.0] * len(labels)
    for stage in stages:
        widths = [table[label]["sandboxed"][stage] for label in labels]
        axis.barh(labels, widths, left=left, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.set(xlabel="microseconds", title="Stages of one request in tokenext (median)")
    axis.legend()


def _chain(axis: Axes, table: dict[str, dict[str, dict[str, Any]]]) -> None:
    labels = [label for label in table if label.startswith("multi-turn")]
    for name in next(iter(table.values())):
        axis.plot(
            [label.removeprefix("multi-turn ") for label in labels],
            [table[label][name]["p50_ms"] for label in labels],
            marker="o",
            label=name,
        )
    axis.set(yscale="log", ylabel="ms", xlabel="tokens", title="A request through Envoy, multi-turn (median)")
    axis.grid(visible=True, which="both", alpha=0.3)
    axis.legend()


def _dynamo(axis: Axes, table: dict[str, dict[str, dict[str, Any]]]) -> None:
    kinds = list(table)
    names = list(next(iter(table.values())))
    for number, name in enumerate(names):
        heights = [table[kind][name]["first_p50_ms"] for kind in kinds]
        bars = axis.bar([index + number * 0.2 for index in range(len(kinds))], heights, 0.18, label=name)
        axis.bar_label(bars, fmt="%.1f")
    axis.set_xticks([index + 0.3 for index in range(len(kinds))], kinds)
    axis.set(ylabel="ms", title="Time to first token at 29k tokens (median)")
    axis.legend()


def _memory(axis: Axes, points: list[tuple[int, float]]) -> None:
    axis.plot([count for count, _ in points], [size for _, size in points], marker="o")
    axis.set(xlabel="requests", ylabel="MB", title="Resident memory of one tokenext process", ylim=(0, None))
    axis.grid(visible=True, alpha=0.3)
