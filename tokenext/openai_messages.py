"""The shape of chat messages and tools, as OpenAI's API reference has it (chat: create).

Tools that do not fit are declined, and the model server gives its own error. Messages that do not fit are
told from the others: most engines refuse them, vLLM takes some.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any, Final, TypeGuard

import orjson

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.request_fields import require

__all__ = ["Message", "MessageList", "Role", "Tool", "is_tool_call", "read_messages", "read_tools"]

Message = Mapping[str, JsonValue]
Tool = Mapping[str, JsonValue]


class Role(StrEnum):
    """Dynamo 1.6.1 answers 400 to any other role; vLLM hands it to the template."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"


_ROLES: Final = frozenset(role.value for role in Role)  # plain text is found faster than an enum's
_PLAIN: Final = ("role", "content")
_ROLE: Final = itemgetter("role")
_CONTENT: Final = itemgetter("content")
_TEXT_FIELDS: Final = ("name", "tool_call_id", "reasoning_content", "reasoning", "refusal")
# Fields that make a part something else than text for vLLM, whatever its type says.
_MEDIA_FIELDS: Final = frozenset(
    {
        *("image_url", "input_image", "image_pil", "image_embeds", "input_audio", "audio_url"),
        *("audio_embeds", "video_url", "video_embeds", "prompt_embeds", "uuid"),
    }
)


@dataclass(frozen=True, slots=True)
class MessageList:
    """At least one message. `plain`: each is a known role, then text, in this order, and nothing else.

    `unusual` is why one of them is not of OpenAI's shape, None where all are. That shape: known roles;
    content that is text, text parts, null or missing; sound tool calls; Unicode. The reason is MULTIMODAL for
    parts that are not text, INVALID_JSON for what only Python takes for JSON, else BAD_REQUEST_SHAPE.
    """

    values: tuple[Message, ...]
    plain: bool
    unusual: SkipReason | None


def read_messages(text: bytes) -> MessageList:
    """The messages of a JSON array. Raises Declined for what is no list of objects with a role."""
    require(bool(text))
    unusual: SkipReason | None = None
    try:
        values: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        values, unusual = _as_python_reads(text), SkipReason.INVALID_JSON
    if not isinstance(values, list) or not values:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    if unusual is None and _are_plain(values):
        return MessageList(tuple(values), plain=True, unusual=None)
    messages = tuple(value for value in values if _is_message(value))
    require(len(messages) == len(values))
    try:
        for message in messages:
            _check(message)
    except Declined as declined:
        unusual = unusual or declined.reason
    return MessageList(messages, plain=False, unusual=unusual)


def is_tool_call(call: JsonValue) -> bool:
    """Whether it is a function's call with an id, a name, and arguments as text."""
    if not isinstance(call, dict) or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return (
        call.get("type", "function") == "function"
        and isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )


def _as_python_reads(text: bytes) -> JsonValue:
    """Halves of surrogate pairs and NaN included. Raises Declined."""
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        raise Declined(SkipReason.INVALID_JSON) from None
    return value


def _are_plain(values: list[Any]) -> TypeGuard[list[Message]]:
    """As nearly all are. Asked of all at once: one by one takes three times as long."""
    return (
        set(map(type, values)) == {dict}
        and set(map(tuple, values)) == {_PLAIN}
        and set(map(type, map(_CONTENT, values))) == {str} == set(map(type, map(_ROLE, values)))
        and set(map(_ROLE, values)) <= _ROLES
    )


def _is_message(value: JsonValue) -> TypeGuard[Message]:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _check(message: Message) -> None:
    require(message["role"] in _ROLES)
    content = message.get("content")
    if isinstance(content, str) and len(message) == len(_PLAIN):
        return
    if isinstance(content, list):
        _check_parts(content)
    else:
        require(content is None or isinstance(content, str))
    for name in _TEXT_FIELDS:
        require(isinstance(message.get(name), str | None))
    calls = message.get("tool_calls")
    if calls is not None:
        require(isinstance(calls, list) and all(map(is_tool_call, calls)))


def _check_parts(parts: list[JsonValue]) -> None:
    for part in parts:
        if not isinstance(part, dict):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        if part.get("type") != "text" or not _MEDIA_FIELDS.isdisjoint(part):
            raise Declined(SkipReason.MULTIMODAL)
        require(isinstance(part.get("text"), str))


def read_tools(values: list[JsonValue]) -> tuple[Tool, ...]:
    """At least one tool, since both engines answer 400 to an empty list. Raises Declined."""
    require(bool(values))
    return tuple(_tool(value) for value in values)


def _tool(tool: JsonValue) -> Tool:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    function = tool.get("function")
    if not isinstance(function, dict):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    require(isinstance(function.get("name"), str))
    require(isinstance(function.get("description"), str | None))
    require(isinstance(function.get("parameters"), dict | None))
    require(isinstance(function.get("strict"), bool | None))
    return tool
