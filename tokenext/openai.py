"""OpenAI request bodies as far as they decide the prompt: /v1/chat/completions and /v1/completions.

Shapes follow the OpenAI API reference (chat: create; completions: create) and the extensions that vLLM and
NVIDIA Dynamo share. The rule for whatever does not fit is `Declined`: the request goes on unchanged and the
model server gives its own error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import msgspec
import orjson

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject, NotAnObjectError, read

__all__ = [
    "GUARDED_PATHS",
    "Api",
    "ChatRequest",
    "CompletionRequest",
    "Message",
    "PromptRequest",
    "Role",
    "parse",
    "read_body",
]

T = TypeVar("T")
Message = Mapping[str, JsonValue]


class Api(StrEnum):
    """The APIs that are tokenized, by path."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


# Where a model server would honour token ids or worker pins in a body (facts: vLLM 0.32, Dynamo 1.6).
GUARDED_PATHS: Final = frozenset({*Api, "/v1/responses", "/v1/messages"})


class Role(StrEnum):
    """Dynamo 1.6.1 answers 400 to any other role."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat body of sound shape. `fields` names every top-level field that is not null.

    Each message has a known role; content that is a string, missing, null, or a list of text parts; and tool
    calls, where present, with an id, a name and arguments as a string.
    """

    model: str
    fields: frozenset[str]
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, JsonValue], ...] | None
    tool_choice: JsonValue
    template_kwargs: Mapping[str, JsonValue]
    reasoning_effort: str | None
    add_generation_prompt: bool
    continue_final_message: bool


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A completion body with one prompt as text. `fields` as above."""

    model: str
    fields: frozenset[str]
    prompt: str


PromptRequest = ChatRequest | CompletionRequest


def read_body(body: bytes) -> JsonObject:
    """Split a body into its fields. Raises Declined."""
    try:
        return read(body)
    except NotAnObjectError:
        raise Declined(SkipReason.INVALID_JSON) from None


def parse(api: Api, body: JsonObject) -> PromptRequest:
    """What the body asks for. Raises Declined; reads only the fields that decide the prompt."""
    fields = {name: value for name, value in body.fields.items() if not _is_null(value)}
    model = _field(fields, "model", str, "")
    if not model:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    # Hand-off adds to this object; anything else there is the model server's to refuse.
    _field(fields, "nvext", dict, {})
    names = frozenset(fields)
    if api is Api.COMPLETION:
        return CompletionRequest(model=model, fields=names, prompt=_prompt(fields))
    tools = _field(fields, "tools", list, None)
    return ChatRequest(
        model=model,
        fields=names,
        messages=_messages(_field(fields, "messages", list, [])),
        tools=None if tools is None else _tools(tools),
        tool_choice=_value(fields.get("tool_choice")),
        template_kwargs=_template_kwargs(fields),
        reasoning_effort=_field(fields, "reasoning_effort", str, None),
        add_generation_prompt=_field(fields, "add_generation_prompt", bool, True),
        continue_final_message=_field(fields, "continue_final_message", bool, False),
    )


def _is_null(raw: msgspec.Raw) -> bool:
    value = memoryview(raw)
    return len(value) == len(b"null") and bytes(value) == b"null"


def _value(raw: msgspec.Raw | None) -> JsonValue:
    if raw is None:
        return None
    try:
        decoded: JsonValue = orjson.loads(memoryview(raw))
    except orjson.JSONDecodeError:  # lone surrogates, invalid UTF-8, nesting deeper than 1,024
        raise Declined(SkipReason.INVALID_JSON) from None
    return decoded


def _field(fields: Mapping[str, msgspec.Raw], name: str, expected: type, default: T) -> T:
    raw = fields.get(name)
    if raw is None:
        return default
    value = _value(raw)
    if type(value) is not expected:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    return value  # type: ignore[return-value]  # of the type just checked


def _template_kwargs(fields: Mapping[str, msgspec.Raw]) -> Mapping[str, JsonValue]:
    # Dynamo reads both names as one field, and refuses a body that has both.
    names = [name for name in ("chat_template_kwargs", "chat_template_args") if name in fields]
    if len(names) > 1:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    kwargs: dict[str, JsonValue] = _field(fields, names[0], dict, {}) if names else {}
    return kwargs


def _prompt(fields: Mapping[str, msgspec.Raw]) -> str:
    prompt = _value(fields.get("prompt"))
    if isinstance(prompt, list):
        raise Declined(SkipReason.PROMPT_LIST)
    if not isinstance(prompt, str):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    return prompt


def _messages(values: list[JsonValue]) -> tuple[Message, ...]:
    _require(bool(values))
    return tuple(_message(value) for value in values)


_ROLES: Final = frozenset(Role)


def _message(value: JsonValue) -> Message:
    if not isinstance(value, dict):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    role = value.get("role")
    _require(isinstance(role, str) and role in _ROLES)
    content = value.get("content")
    if isinstance(content, list):
        _check_parts(content)
    else:
        _require(content is None or isinstance(content, str))
    for name in ("name", "tool_call_id", "reasoning_content", "reasoning", "refusal"):
        _require(isinstance(value.get(name), str | None))
    calls = value.get("tool_calls")
    if calls is not None:
        _require(isinstance(calls, list) and all(_is_tool_call(call) for call in calls))
    return value


def _check_parts(parts: list[JsonValue]) -> None:
    for part in parts:
        if not isinstance(part, dict):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        if part.get("type") != "text":
            raise Declined(SkipReason.MULTIMODAL)
        _require(isinstance(part.get("text"), str))


def _is_tool_call(call: JsonValue) -> bool:
    if not isinstance(call, dict) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return (
        call.get("type", "function") == "function"
        and isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )


def _tools(values: list[JsonValue]) -> tuple[Mapping[str, JsonValue], ...]:
    _require(bool(values))  # both engines answer 400 to an empty list
    tools: list[Mapping[str, JsonValue]] = []
    for tool in values:
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        function = tool.get("function")
        if not isinstance(function, dict):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        _require(isinstance(function.get("name"), str))
        _require(isinstance(function.get("description"), str | None))
        _require(isinstance(function.get("parameters"), dict | None))
        _require(isinstance(function.get("strict"), bool | None))
        tools.append(tool)
    return tuple(tools)


def _require(holds: bool) -> None:
    if not holds:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
