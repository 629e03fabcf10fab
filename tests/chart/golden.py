"""The renders that are kept word for word, as a reader of a change sees what it does to the cluster."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.chart.matrix import MONITORED, ROUTED, TIER, Values
from tests.chart.rendering import Rendered, render

GOLDEN = Path(__file__).parent / "golden"
RELEASES: Mapping[str, Values] = {
    "standalone": {},
    "istio": {"provider": "istio", **ROUTED},
    "envoygateway": {"provider": "envoygateway", **ROUTED},
    "render-tier": {**TIER, **MONITORED, "dashboard": {"enabled": False}},
}


class _Dumper(yaml.SafeDumper):
    """Text of several lines stays readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def text(release: Rendered) -> str:
    objects = yaml.dump_all(release.objects, Dumper=_Dumper, sort_keys=False, width=110)
    notes = "".join(f"# {line}".rstrip() + "\n" for line in release.notes.strip().splitlines())
    return f"{notes}---\n{objects}"


def write() -> None:
    for name, values in RELEASES.items():
        (GOLDEN / f"{name}.yaml").write_text(text(render(values)), encoding="utf-8")
