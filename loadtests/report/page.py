"""The page, whole in one file: pictures are inside it, and nothing is loaded from anywhere."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loadtests.load.record import Record
from loadtests.report.figures import Figures

__all__ = ["render", "summary"]

_TEMPLATE: Final = "page.html.jinja"


def render(record: Record, targets: Sequence[Figures], pictures: Mapping[str, bytes]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"ms": _ms, "percent": _percent, "total": _total}
    return environment.get_template(_TEMPLATE).render(
        title=record.title,
        summary=summary(targets),
        targets=targets,
        failing=[each for each in targets if each.failures],
        pictures={name: b64encode(picture).decode("ascii") for name, picture in pictures.items()},
        machine=record.machine,
        parameters=json.dumps(record.parameters, indent=1, default=str),
    )


def summary(targets: Sequence[Figures]) -> str:
    """In one line."""
    count, failed = sum(each.requests for each in targets), sum(each.failed for each in targets)
    what = "1 target" if len(targets) == 1 else f"{len(targets)} targets"
    return f"{what}, {count:,} requests, {failed} failed"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _total(parts: Mapping[str, float]) -> str:
    return f"{sum(parts.values()):.1f} ms" if parts else "-"
