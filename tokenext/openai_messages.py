"""The shape of chat messages and tools, as OpenAI's API reference has it (chat: create).

Tools that do not fit are declined, and the model server gives its own error. Messages that do not fit are
told from the others: most engines refuse them, vLLM takes some.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeGuard

import orjson

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.request_fields import require

__all__ = ["Message", "Role", "Tool", "is_tool_call", "read_messages", "read_tools"]

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
_TEXT_FIELDS: Final = ("name", "tool_call_id", "reasoning_content", "reasoning", "refusal")
# Fields that make a part something else than text for vLLM, whatever its type says.
_MEDIA_FIELDS: Final = frozenset(
    {
        *("image_url", "input_image", "image_pil", "image_embeds", "input_audio", "audio_url"),
        *("audio_embeds", "video_url", "video_embeds", "prompt_embeds", "uuid"),
    }
)


def read_messages(text: bytes) -> tuple[tuple[Message, ...], SkipReason | None]:
    """The messages of a JSON array, at least one, and why one of them is not of OpenAI's shape.

    That shape: known roles; content that is text, text parts, null or missing; sound tool calls; Unicode.
    The reason is MULTIMODAL for parts that are not text, INVALID_JSON for what only Python takes for JSON,
    else BAD_REQUEST_SHAPE; None where all are. Raises Declined for what is no list of objects with a role.
    """
    require(bool(text))
    unusual: SkipReason | None = None
    try:
        values: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        values, unusual = _as_python_reads(text), SkipReason.INVALID_JSON
    if not isinstance(values, list) or not values:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    messages = tuple(value for value in values if _is_message(value))
    require(len(messages) == len(values))
    try:
        for message in messages:
            _check(message)
    except Declined as declined:
        unusual = unusual or declined.reason
    return messages, unusual


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


def _is_message(value: JsonValue) -> TypeGuard[Message]:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _check(message: Message) -> None:
    require(message["role"] in _ROLES)
    content = message.get("content")
    if isinstance(content, str) and len(message) == len(("role", "content")):
        return  # as nearly all messages are
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
