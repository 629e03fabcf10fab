"""Which messages the request model of vLLM 0.32 takes beside those of OpenAI's shape.

A message fits if it fits the OpenAI type of its role, which knows no more than its own fields, or
CustomChatCompletionMessageParam, which is for any role (renderers/chat_utils.py). Each rule was seen at a
vLLM 0.32.0 render server; the cases are in tests/tokenext/test_vllm_message_types.py.
"""

from collections.abc import Mapping
from typing import Final

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.openai_messages import Message, Role, is_tool_call
from tokenext.request_fields import is_unicode, require

__all__ = ["TEXT_KEYS", "TOOL_REFERENCE", "check_message"]

# Where the text of a part stands, by the part's type.
TEXT_KEYS: Final[Mapping[JsonValue, str]] = {
    "text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "input_text": "text",
    "output_text": "text",
}
TOOL_REFERENCE: Final = "tool_reference"
# Those of which the request model has a type of its own; of the other two vLLM knows only what they are.
_TYPED: Final = ("text", "refusal", "thinking")


def check_message(message: Message) -> None:
    """Raises Declined for what vLLM answers 400 to: MULTIMODAL for parts, else BAD_REQUEST_SHAPE."""
    require(_fits_its_role(message) or _fits_any_role(message))
    require(is_unicode("".join(message)))  # of values it does not matter, unless a prompt shows them
    content = message.get("content")
    if isinstance(content, list):
        _check_parts(content)
    calls = message.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        # Of other known roles it is a field that their types do not have.
        if message["role"] not in _OTHER_ROLES:
            require(all(map(_is_complete_call, calls)))


_OTHER_ROLES: Final = frozenset(set(Role) - {Role.ASSISTANT})


def _is_complete_call(call: JsonValue) -> bool:
    return is_tool_call(call) and isinstance(call, dict) and "type" in call


def _fits_its_role(message: Message) -> bool:
    content = message.get("content")
    has_content = isinstance(content, str | list)
    match message["role"]:
        case Role.SYSTEM | Role.DEVELOPER | Role.USER:
            return has_content and _is_text_if_given(message, "name")
        case Role.ASSISTANT:
            return (
                (content is None or has_content)
                and _is_text_if_given(message, "name")
                and isinstance(message.get("refusal"), str | None)
                and isinstance(message.get("audio"), dict | None)
                and isinstance(message.get("function_call"), dict | None)
            )
        case Role.TOOL:
            return has_content and isinstance(message.get("tool_call_id"), str)
        case Role.FUNCTION:
            text = "content" in message and isinstance(content, str | None)
            return text and isinstance(message.get("name"), str)
    return False


def _fits_any_role(message: Message) -> bool:
    return (
        ("content" not in message or isinstance(message["content"], str | list))
        and _is_text_if_given(message, "name")
        and isinstance(message.get("tool_call_id"), str | None)
        and all(
            isinstance(message.get(name), str | None) for name in ("reasoning", "reasoning_content", "task")
        )
        and isinstance(message.get("tools"), list | None)
    )


def _is_text_if_given(message: Message, name: str) -> bool:
    return name not in message or isinstance(message[name], str)


def _check_parts(parts: list[JsonValue]) -> None:
    # Of bare texts alone the type of the role has the say, and it knows none.
    if not all(map(_is_text, parts)) or (parts and not any(map(_is_of_a_type, parts))):
        raise Declined(SkipReason.MULTIMODAL)


def _is_text(part: JsonValue) -> bool:
    if not isinstance(part, dict):
        return isinstance(part, str)
    kind = part.get("type")
    if part.get("uuid") is not None or not isinstance(kind, str):
        return False
    if kind == TOOL_REFERENCE:
        return True
    key = TEXT_KEYS.get(kind)
    return (
        key is not None
        and isinstance(part.get(key), str | None)
        and isinstance(part.get("prompt_cache_breakpoint"), dict | None)
    )


def _is_of_a_type(part: JsonValue) -> bool:
    """Whether one of the request model's types for parts has a field that this part has."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return kind == TOOL_REFERENCE or (kind in _TYPED and isinstance(part.get(TEXT_KEYS[kind]), str))
