"""The shape of chat messages and tools, as OpenAI's API reference has it (chat: create).

What does not fit is declined, and the model server gives its own error.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.request_fields import require

__all__ = ["Message", "Role", "Tool", "read_messages", "read_tools"]

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


def read_messages(values: list[JsonValue]) -> tuple[Message, ...]:
    """At least one message: known roles; content that is text, text parts, null or missing; sound tool calls.

    Raises Declined: MULTIMODAL for parts that are not text, else BAD_REQUEST_SHAPE.
    """
    require(bool(values))
    return tuple(_message(value) for value in values)


def _message(value: JsonValue) -> Message:
    if not isinstance(value, dict):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    role = value.get("role")
    require(isinstance(role, str) and role in _ROLES)
    content = value.get("content")
    if isinstance(content, str) and len(value) == len(("role", "content")):
        return value  # as nearly all messages are
    if isinstance(content, list):
        _check_parts(content)
    else:
        require(content is None or isinstance(content, str))
    for name in _TEXT_FIELDS:
        require(isinstance(value.get(name), str | None))
    calls = value.get("tool_calls")
    if calls is not None:
        require(isinstance(calls, list) and all(_is_tool_call(call) for call in calls))
    return value


def _check_parts(parts: list[JsonValue]) -> None:
    for part in parts:
        if not isinstance(part, dict):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        if part.get("type") != "text" or not _MEDIA_FIELDS.isdisjoint(part):
            raise Declined(SkipReason.MULTIMODAL)
        require(isinstance(part.get("text"), str))


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
