"""The chart's README: its text is README.head.md, its table comes from values.schema.json and values.yaml."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.chart.rendering import CHART

README = CHART / "README.md"
MARK = "<!-- values: made by `python -m tests.chart docs` from values.schema.json and values.yaml -->"


def readme() -> str:
    """The README as it should be: what stands before the mark, and the table."""
    head = README.read_text(encoding="utf-8").partition(MARK)[0]
    return f"{head}{MARK}\n\n{table()}"


def table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = ["| value | type | default | what it is |", "|---|---|---|---|"]
    lines += [
        f"| `{path}` | {_type(each)} | {_default(default)} | {each['description']} |"
        for path, each, default in leaves(schema, values)
    ]
    return "\n".join(lines) + "\n"


def leaves(schema: Any, values: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value that has no values of its own: its path, its schema, its default."""
    for name, each in schema["properties"].items():
        if name == "global":
            continue
        here = f"{path}.{name}" if path else name
        if each.get("properties") and each["type"] == "object":
            yield from leaves(each, values[name], here)
        else:
            yield here, each, values[name]


def _type(schema: Any) -> str:
    if "enum" in schema:
        return " \\| ".join(schema["enum"])
    of = schema["type"]
    return " or ".join(of) if isinstance(of, list) else str(of)


def _default(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"
