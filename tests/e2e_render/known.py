"""The differences that are known, each with its reason and as narrow as it is true. The run fails on others.

docs/render-api.md tells people of them. Ids never differ by design, statuses only for what the whole chain
leaves untokenized.
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


def _of_parts(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    contents = [each.get("content") for each in _messages(body)]
    broken = any(not isinstance(part, dict) for each in contents if isinstance(each, list) for part in each)
    return broken and difference.field in {"error.type", "error.param"} and _is_of_shape(difference)


def _of_template_arguments(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    named = body.get("chat_template_kwargs")
    own = isinstance(named, dict) and not {"tools", "messages", "conversation"}.isdisjoint(named)
    return own and difference.field in {"error.type", "error.param"} and _is_of_shape(difference)


def _is_of_shape(difference: Difference) -> bool:
    return (difference.theirs, difference.ours) in {
        ("BadRequestError", "Bad Request"),
        (None, "body.messages"),
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


def _of_the_chain(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    left = any(_is_left(each) for each in _messages(body))
    return left and difference.field == "status" and (difference.theirs, difference.ours) == (200, 400)


def _of_its_errors(_: Asked, body: Mapping[str, Any], difference: Difference) -> bool:
    left = any(_is_left(each) for each in _messages(body))
    return left and difference.field in {"error.type", "error.param"} and _is_of_shape(difference)


def _is_left(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    thoughts = (message.get("reasoning_content"), message.get("reasoning"))
    return (
        message.get("role") not in {"system", "developer", "user", "assistant", "tool", "function"}
        or any(isinstance(part, dict) and part.get("type") == "refusal" for part in parts)
        or any(not isinstance(each, str | None) or _has_surrogate(each or "") for each in thoughts)
    )


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= each <= "\udfff" for each in text)


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []


KNOWN: Final = (
    Known(
        "status: messages that the chain leaves alone",
        "roles that OpenAI does not know, refusal parts, reasoning that is no text or not Unicode: the same "
        "rules hold in ext_proc, for every engine; 400 here, which clients take as no ids",
        _of_the_chain,
    ),
    Known(
        "error of messages that the chain leaves alone",
        "likewise, where vLLM's template or tokenizer refuses such a message",
        _of_its_errors,
    ),
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
        "error of content parts",
        "vLLM reads parts late and calls a broken one a BadRequestError; ours is of the shape, as all of a "
        "message is",
        _of_parts,
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
    Known("error.param of /tokenize", "vLLM tries two shapes and names the first one's field", _of_union),
    Known(
        "error.param of another content-type",
        "FastAPI reads application/*+json before the type is refused",
        _of_content_type,
    ),
    Known("/v1/models", "no path of this machine, no permissions that mean nothing", _of_models),
    Known("/version", "it is tokenext's own", _of_version),
)
