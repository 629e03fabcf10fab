"""How a model samples where a request does not say: its generation_config.json, as vLLM takes it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from extproc.verdict import JsonValue

__all__ = ["GenerationConfig", "sampling_defaults"]


class GenerationConfig(StrEnum):
    """As vLLM's flag of this name: whose defaults count."""

    AUTO = "auto"  # the model's
    VLLM = "vllm"  # none but vLLM's own


_INTEGERS: Final = frozenset({"top_k", "max_tokens"})
# A request's field by the name there.
_FIELDS: Final[Mapping[str, str]] = {
    **{name: name for name in ("repetition_penalty", "presence_penalty", "frequency_penalty")},
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p")},
    "max_new_tokens": "max_tokens",
}


def sampling_defaults(generation_config: Mapping[str, JsonValue]) -> dict[str, float]:
    """By the names of a request's fields. Special tokens are the engine's business, and no part of it.

    vLLM 0.32, config/model.py (get_diff_sampling_param), with transformers 5, in which whatever the file has
    counts: 4 passed over what were its own defaults, as top_k 50.
    """
    numbers = {name: value for name, value in generation_config.items() if type(value) in {int, float}}
    return {
        field: number
        for name, field in _FIELDS.items()
        if isinstance(number := numbers.get(name), int if field in _INTEGERS else int | float)
    }
