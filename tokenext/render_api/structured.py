"""`structured_outputs` of sampling_params: what the answer must look like, as vLLM 0.32 states it.

structured_outputs_from_response_format of vLLM: response_format is another way to say the same.
"""

import json
from collections.abc import Mapping
from typing import Final

from extproc.verdict import JsonValue

__all__ = ["structured_outputs"]

# All of vLLM's StructuredOutputsParams: they are written whole.
_NOTHING: Final[Mapping[str, JsonValue]] = {
    **dict.fromkeys(("json", "regex", "choice", "grammar", "json_object")),
    "disable_any_whitespace": False,
    "disable_additional_properties": False,
    **dict.fromkeys(("whitespace_pattern", "structural_tag", "_backend")),
    "_backend_was_auto": False,
}


def structured_outputs(
    structured: Mapping[str, JsonValue] | None, response_format: Mapping[str, JsonValue] | None
) -> dict[str, JsonValue] | None:
    """None where nothing is asked for."""
    wanted = _of_format(response_format)
    if structured is None and not wanted:
        return None
    known = {name: value for name, value in (structured or {}).items() if name in _NOTHING}
    return {**_NOTHING, **known, **wanted}


def _of_format(wanted: Mapping[str, JsonValue] | None) -> dict[str, JsonValue]:
    kind = None if wanted is None else wanted.get("type")
    if wanted is None or kind in (None, "text"):
        return {}
    if kind == "json_object":
        return {"json_object": True}
    schema = wanted.get("json_schema")
    if kind == "json_schema" and isinstance(schema, dict):
        return {"json": schema.get("schema")}
    return {"structural_tag": json.dumps(wanted)}
