"""The differences that are known, each with its reason and as narrow as it is true. The run fails on others.

docs/render-api.md tells people of them. Ids and statuses never differ.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e_render.asked import CHAT, TOKENIZE, Asked
from tests.e2e_render.comparison import Difference

__all__ = ["KNOWN", "Known", "known"]


@dataclass(frozen=True, slots=True)
class Known:
    """`holds` gets the request's body as JSON, {} where it is no object."""

    name: str
    reason: str
    holds: Callable[[Asked, Mapping[str, Any], Difference], bool]


def known(asked: Asked, difference: Difference) -> Known | None:
    """Why the two differ there, None where nobody knows."""
    body = _body(asked)
    return next((each for each in KNOWN if each.holds(asked, body, difference)), None)


def _body(asked: Asked) -> Mapping[str, Any]:
    try:
        value = json.loads(asked.body or b"")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _of_tool_parser(asked: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    if asked.path != CHAT or not body.get("tools"):
        return False
    if difference.field == "sampling_params.skip_special_tokens":
        return (difference.theirs, difference.ours) == (False, True)
    if difference.field.startswith("sampling_params.structured_outputs."):
        # In the place of response_format's own.
        name = difference.field.rpartition(".")[2]
        return (name, difference.ours) == ("structural_tag", None) or (
            (difference.theirs, difference.ours) == (None, True) and name == "json_object"
        )
    tag = difference.theirs.get("structural_tag") if isinstance(difference.theirs, dict) else None
    return difference.field == "sampling_params.structured_outputs" and bool(tag) and not difference.ours


def _of_pydantics_types(_: Asked, __: Mapping[str, Any], difference: Difference) -> bool:
    return difference.field == "error.param" and (
        ("ChatCompletion" in str(difference.theirs) and difference.ours == "body.messages")
        or (str(difference.theirs).rpartition(".")[0] == difference.ours == "body.logit_bias")
    )


def _of_union(asked: Asked, _: Mapping[str, Any], difference: Difference) -> bool:
    return asked.path == TOKENIZE and difference.field == "error.param" and difference.theirs == "body.prompt"


def _of_length(_: Asked, __: Mapping[str, Any], difference: Difference) -> bool:
    told = (difference.theirs, difference.ours)
    return difference.field == "error.param" and told == ("input_text", "input_tokens")


def _of_late_faults(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    late = any(
        each.get("tool_calls") is not None
        or isinstance(content := each.get("content"), dict)
        or (isinstance(content, list) and any(map(_is_late_part, content)))
        for each in _messages(body)
    )
    return late and difference.field in {"error.type", "error.param"} and _is_of_shape(difference)


def _is_late_part(part: object) -> bool:
    return isinstance(part, dict) and ("uuid" in part or part.get("type") == "file")


def _of_silent_messages(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    silent = any(
        "content" in each and each["content"] is None and each.get("role") not in {"assistant", "function"}
        for each in _messages(body)
    )
    return silent and (
        (difference.theirs, difference.ours) == ("Bad Request", "BadRequestError")
        or (difference.field == "error.param" and str(difference.theirs).startswith("body.messages."))
    )


def _of_template_arguments(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    named = body.get("chat_template_kwargs")
    own = isinstance(named, dict) and not {"tools", "messages", "conversation"}.isdisjoint(named)
    return own and difference.field in {"error.type", "error.param"} and _is_of_shape(difference)


def _is_of_shape(difference: Difference) -> bool:
    return (difference.theirs, difference.ours) in {
        ("BadRequestError", "Bad Request"),
        (None, "body.messages"),
        ("tool_calls", "body.messages"),
        ("type", None),
    }


def _of_surrogates(asked: Asked, _: Mapping[str, Any], difference: Difference) -> bool:
    told = difference.field in {"error.type", "error.param"} and difference.ours in {None, "BadRequestError"}
    return told and b"\\ud" in (asked.body or b"").lower()


def _of_content_type(asked: Asked, _: Mapping[str, Any], difference: Difference) -> bool:
    suffixed = asked.headers.get("content-type", "").endswith("+json")
    return suffixed and difference.field == "error.param" and difference.ours is None


def _of_offsets(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    return (
        difference.field == "token_offsets" and bool(body.get("return_token_offsets")) and not difference.ours
    )


def _of_models(asked: Asked, _: Mapping[str, Any], difference: Difference) -> bool:
    names = {"data.0.owned_by", "data.0.root", "data.0.permission"}
    return asked.path == "/v1/models" and difference.field in names


def _of_version(asked: Asked, _: Mapping[str, Any], difference: Difference) -> bool:
    return asked.path == "/version" and difference.field == "version"


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []


KNOWN: Final = (
    Known(
        "sampling_params with tools",
        "a tool parser is a flag of vLLM's and may rewrite the request (hermes: skip_special_tokens false, a "
        "structural tag); tokenext has none",
        _of_tool_parser,
    ),
    Known(
        "token_offsets",
        "null: offsets cost a second pass of another tokenizer, and pickers route by ids",
        _of_offsets,
    ),
    Known(
        "error.param inside a message",
        "vLLM names pydantic's data types there, of which one message fits many; ours stops at the field",
        _of_pydantics_types,
    ),
    Known(
        "error.param of a very long text",
        "vLLM refuses a text by its characters before it is tokenized; here it is tokenized, and too long "
        "(bounded by limits.max_body_bytes)",
        _of_length,
    ),
    Known(
        "error of a message's late faults",
        "vLLM looks at tool calls, at content that is an object and at parts with a uuid after the rest, and "
        "calls what is wrong a BadRequestError; ours is of the shape, as all of a message is",
        _of_late_faults,
    ),
    Known(
        "error of template arguments",
        "transformers refuses what replaces its own arguments, in words of its own",
        _of_template_arguments,
    ),
    Known(
        "error of two faults",
        "half of a surrogate pair is found before what else is wrong; in vLLM the tokenizer finds it last",
        _of_surrogates,
    ),
    Known(
        "error of two faults, one of them a message's",
        "vLLM looks at the types inside messages before it looks at what fields say, tokenext after it",
        _of_silent_messages,
    ),
    Known("error.param of /tokenize", "vLLM tries two shapes and names the first one's field", _of_union),
    Known(
        "error.param of another content-type",
        "FastAPI reads application/*+json before the type is refused",
        _of_content_type,
    ),
    Known("/v1/models", "no path of this machine, no permissions that mean nothing", _of_models),
    Known("/version", "it is tokenext's own", _of_version),
)
