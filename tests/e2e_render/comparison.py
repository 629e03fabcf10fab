"""Where two answers to one request differ, field by field, by the rules of vLLM's own contract.

What no two answers of one server have in common is masked: random ids, times. `sampling_params` are read as
vLLM reads them, where a key that is absent has its default (docs/render-api.md).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e_render.asked import Asked, Reply

__all__ = ["Difference", "differences"]

_RANDOM_ID: Final = re.compile(r"(chatcmpl-|cmpl-)[0-9a-f]{16}(-\d+)?")
_MESSAGE: Final = re.compile(r"error\.message|detail")
_ABSENT: Final = "absent"
# vLLM 0.32, sampling_params.py: SamplingParams' own defaults, of the fields that JSON may leave out.
_DEFAULTS: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("n", "temperature", "top_p", "repetition_penalty"), 1),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_p", "top_k", "min_tokens"), 0),
    **dict.fromkeys(("routed_experts_prompt_start", "output_text_buffer_length"), 0),
    "max_tokens": 16,
    **{name: [] for name in ("stop", "stop_token_ids", "bad_words")},
    **dict.fromkeys(("seed", "logprobs", "prompt_logprobs", "logprob_token_ids", "structured_outputs")),
    **dict.fromkeys(("logit_bias", "allowed_token_ids", "extra_args", "thinking_token_budget")),
    **dict.fromkeys(("repetition_detection", "stream_interval", "watermarking")),
    **dict.fromkeys(("ignore_eos", "include_stop_str_in_output", "skip_clone", "flat_logprobs"), False),
    **dict.fromkeys(("detokenize", "skip_special_tokens", "spaces_between_special_tokens"), True),
    "output_kind": 0,
    "skip_reading_prefix_cache": None,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`field` is a path of names; "token_ids" also for what /tokenize calls `tokens`."""

    field: str
    theirs: Any
    ours: Any


def differences(asked: Asked, theirs: Reply, ours: Reply) -> list[Difference]:
    """All of them. Where the statuses differ, that alone."""
    if theirs.status != ours.status:
        return [Difference("status", theirs.status, ours.status)]
    return [
        *_of_values("header", dict(theirs.headers), dict(ours.headers)),
        *_of_bodies(asked, theirs.value, ours.value),
    ]


def _of_bodies(asked: Asked, theirs: Any, ours: Any) -> Iterator[Difference]:
    path = asked.path.partition("?")[0]
    if isinstance(theirs, list) and isinstance(ours, list) and path.endswith("/render"):
        if len(theirs) != len(ours):
            yield Difference("prompts", len(theirs), len(ours))
        for one, other in zip(theirs, ours, strict=False):
            yield from _of_values("", _masked(one), _masked(other))
        return
    yield from _of_values("", _masked(theirs), _masked(ours))


def _masked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "openapi" in value:
        return {"openapi": value["openapi"]}  # each describes itself
    shown = dict(value)
    if isinstance(value.get("request_id"), str):
        shown["request_id"] = _RANDOM_ID.sub(r"\1random\2", value["request_id"])
    if isinstance(params := value.get("sampling_params"), dict):
        shown["sampling_params"] = {**_DEFAULTS, **params}
    if isinstance(value.get("data"), list):
        shown["data"] = {str(number): {**each, "created": 0} for number, each in enumerate(value["data"])}
    if "tokens" in value:
        shown["token_ids"] = shown.pop("tokens")
    return shown


def _of_values(path: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if _MESSAGE.fullmatch(path) and isinstance(theirs, str) and isinstance(ours, str) and theirs and ours:
        return  # a text for people, which differs by design
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in dict.fromkeys((*theirs, *ours)):
            inner = f"{path}.{name}" if path else name
            yield from _of_values(inner, theirs.get(name, _ABSENT), ours.get(name, _ABSENT))
    elif _unequal(theirs, ours):
        yield Difference(path, theirs, ours)


def _unequal(theirs: Any, ours: Any) -> bool:
    """1 is 1.0, and not true."""
    if isinstance(theirs, bool) or isinstance(ours, bool):
        return theirs is not ours
    return bool(theirs != ours)
