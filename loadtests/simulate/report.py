"""A run as a table, a picture, a JSON file and one line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from rich.table import Table

from loadtests.simulate.bounds import Bound
from loadtests.simulate.run import Outcome

__all__ = ["draw", "summary", "table", "write"]


def table(outcomes: Mapping[str, Outcome], best: float) -> Table:
    shown = Table(title=f"Prefix hit rate and time to the first token (best possible hit rate {best:.2f})")
    for name in (
        "strategy",
        "hit rate",
        "first token p50",
        "p90",
        "p99",
        "pick p50",
        "busiest worker",
        "failed",
    ):
        shown.add_column(name, justify="left" if name == "strategy" else "right")
    for name, outcome in outcomes.items():
        picks = sorted(sample.pick_seconds for sample in outcome.samples)
        shown.add_row(
            name,
            f"{outcome.hit_rate:.3f}",
            *(f"{outcome.first_token_ms(quantile):.0f} ms" for quantile in (0.5, 0.9, 0.99)),
            f"{1e3 * picks[len(picks) // 2]:.2f} ms",
            f"{outcome.imbalance:.2f}x",
            str(outcome.failed.total()),
        )
    return shown


def draw(outcomes: Mapping[str, Outcome], best: float, path: Path) -> None:
    figure, (rates, times) = plt.subplots(1, 2, figsize=(12, 4.5))
    bars = rates.bar(list(outcomes), [outcome.hit_rate for outcome in outcomes.values()], color="tab:blue")
    rates.bar_label(bars, fmt="%.2f", label_type="center", color="white")
    rates.axhline(best, color="black", linestyle="--", linewidth=1, label="best possible")
    rates.set(ylim=(0, 1), ylabel="cached by prompt tokens", title="Prefix hit rate")
    rates.legend()
    for name, outcome in outcomes.items():
        ordered = sorted(1e3 * sample.first_token_seconds for sample in outcome.samples)
        shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
        times.plot(ordered, shares, label=name)
    times.set(xscale="log", xlabel="ms", ylabel="share of requests", title="Time to the first token")
    times.grid(visible=True, which="both", alpha=0.3)
    times.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(
    outcomes: Mapping[str, Outcome],
    bounds: Sequence[Bound],
    *,
    settings: Mapping[str, object],
    best: float,
    path: Path,
) -> None:
    document = {
        "settings": settings,
        "best_hit_rate": round(best, 4),
        "strategies": {
            name: {
                "requests": len(outcome.samples),
                "failed": dict(outcome.failed),
                "hit_rate": round(outcome.hit_rate, 4),
                "first_token_ms": {
                    f"p{round(100 * quantile)}": round(outcome.first_token_ms(quantile), 1)
                    for quantile in (0.5, 0.9, 0.99)
                },
                "busiest_worker": round(outcome.imbalance, 3),
            }
            for name, outcome in outcomes.items()
        },
        "bounds": [asdict(bound) | {"value": round(bound.value, 4)} for bound in bounds],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def summary(outcomes: Mapping[str, Outcome], bounds: Sequence[Bound]) -> str:
    missed = [bound.what for bound in bounds if not bound.holds]
    figures = ", ".join(
        f"{name} {outcome.hit_rate:.2f} / {outcome.first_token_ms(0.5):.0f} ms"
        for name, outcome in outcomes.items()
    )
    verdict = f"MISSED {'; '.join(missed)}" if missed else f"ok, {len(bounds)} bounds hold"
    return f"simulate: hit rate / first token p50: {figures}; {verdict}"
