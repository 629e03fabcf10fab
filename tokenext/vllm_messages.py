"""How vLLM 0.32 rebuilds chat messages before its template runs (renderers/chat_utils.py).

Each rule was seen at a vLLM 0.32.0 render server; the cases are in tests/tokenext/test_vllm_profile.py. What
vLLM's request model refuses is declined or passes: the messages reach vLLM in both cases.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeGuard

from extproc.verdict import JsonValue
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.openai import Message, Role
from tokenext.request_fields import require
from tokenext.vllm_message_types import TEXT_KEYS, TOOL_REFERENCE, check_message

__all__ = ["developers_as_system", "plain_texts", "rebuilt"]

_Object = dict[str, JsonValue]

_BILLING_HEADER: Final = "x-anthropic-billing-header"
# pydantic puts known keys first, in the order of the OpenAI types, and the client's others behind them.
_CALL_KEYS: Final = ("id", "function", "type")
_FUNCTION_KEYS: Final = ("arguments", "name")
# Parts of these types count as not there where they have no text.
_PASSED_OVER: Final = ("text", "refusal")
# What nearly every message is made of. Of system messages lines may go, of developers' tools come.
_PLAIN_KEYS: Final = ("role", "content")
_PLAIN_ROLES: Final = frozenset({Role.USER.value, Role.ASSISTANT.value, Role.TOOL.value})
# The fields of vLLM's types of parts. A client's others stay with the text.
_PART_KEYS: Final = frozenset(
    {
        *("type", "text", "prompt_cache_breakpoint", "refusal", "thinking", "closed", "name", "data", "file"),
        *("uuid", "audio_embeds", "audio_url", "image_embeds", "image_pil", "image_url", "input_audio"),
        *("video_embeds", "video_url"),
    }
)


def rebuilt(message: Message, content_format: ContentFormat) -> _Object:
    """The message with the fields that vLLM keeps, in its order. Raises Declined.

    One of which it keeps all is returned as it is: whoever knows it by that need not compare it.
    """
    content = message.get("content")
    if content_format is ContentFormat.STRING and isinstance(content, str) and _is_plain(message):
        return message
    check_message(message)
    role = str(message["role"])
    parts = _parts(content)
    if role == Role.SYSTEM:
        parts = _without_billing_header(parts)
    kept: _Object = {"role": role, "content": _content(parts, role, content_format)}
    if role == Role.ASSISTANT:
        kept |= _assistant_fields(message)
    elif role == Role.TOOL and "tool_call_id" in message:
        kept["tool_call_id"] = message["tool_call_id"]
    for name in ("name", "task"):
        if isinstance(message.get(name), str):
            kept[name] = message[name]
    if role == Role.DEVELOPER:
        kept["tools"] = message.get("tools")
    return kept


def plain_texts(messages: Sequence[Message]) -> list[Message]:
    """As `rebuilt` to texts. Each message is a role and a text, and none a developer's."""
    return [
        message if message["role"] in _PLAIN_ROLES else rebuilt(message, ContentFormat.STRING)
        for message in messages
    ]


def _is_plain(message: Message) -> TypeGuard[_Object]:
    return tuple(message) == _PLAIN_KEYS and message["role"] in _PLAIN_ROLES


def _parts(content: JsonValue) -> list[_Object]:
    """Texts, whatever they came as, and references to tools. `content` is as check_message has it."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [known for part in content if (known := _part(part))] if isinstance(content, list) else []


def _part(part: JsonValue) -> _Object:
    """Empty for one that is passed over."""
    if not isinstance(part, dict):
        return {"type": "text", "text": part}
    kind = part["type"]
    if kind == TOOL_REFERENCE:
        return {"type": TOOL_REFERENCE, "name": part.get("name")}
    text = part.get(TEXT_KEYS[kind])
    if text is None and kind in _PASSED_OVER:
        return {}
    return {
        "type": "text",
        "text": text,
        **{name: value for name, value in part.items() if name not in _PART_KEYS},
    }


def _content(parts: list[_Object], role: str, content_format: ContentFormat) -> JsonValue:
    if content_format is ContentFormat.STRING:
        texts = [part["name"] if part["type"] == TOOL_REFERENCE else part["text"] for part in parts]
        return "\n".join(text for text in texts if isinstance(text, str) and text)
    if role == Role.TOOL and all(part["type"] == "text" for part in parts):
        # Flattened all the same, but with its empty parts.
        texts = [part["text"] for part in parts]
        require(all(isinstance(text, str) for text in texts))
        return "\n".join(map(str, texts))
    return [*parts]


def _without_billing_header(parts: list[_Object]) -> list[_Object]:
    """Claude Code puts a line into system texts that changes with every request; vLLM takes it out."""
    kept: list[_Object] = []
    for part in parts:
        text = str(part.get("text"))
        if not text.startswith(_BILLING_HEADER):
            kept.append(part)
        elif rest := text.partition("\n")[2]:
            kept.append({**part, "text": rest})
    return kept


def _assistant_fields(message: Message) -> _Object:
    fields: _Object = {}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        fields["tool_calls"] = [_tool_call(call) for call in calls if isinstance(call, dict)]
    # One field by two names: the newer one wins, an empty text counts.
    reasoning = message.get("reasoning")
    if reasoning is None:
        reasoning = message.get("reasoning_content")
    if reasoning is not None:
        fields |= {"reasoning": reasoning, "reasoning_content": reasoning}
    return fields


def _tool_call(call: _Object) -> _Object:
    function = call["function"]
    assert isinstance(function, dict)  # check_message saw to it
    given = _in_order(function, _FUNCTION_KEYS)
    given["arguments"] = _arguments(str(function["arguments"]))
    return _in_order({**call, "function": given}, _CALL_KEYS)


def _in_order(value: Mapping[str, JsonValue], keys: Sequence[str]) -> _Object:
    return {key: value[key] for key in keys} | {key: item for key, item in value.items() if key not in keys}


def _arguments(text: str) -> JsonValue:
    """Parsed as Python's json does, NaN and wide integers included; {} for whatever is no object."""
    try:
        parsed = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    except RecursionError:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE) from None
    return parsed if isinstance(parsed, dict) else {}


def developers_as_system(messages: list[_Object]) -> list[_Object]:
    """What vLLM does where a template does not know developers: they become system messages.

    All system messages are then one, the first, if any of them stands elsewhere.
    """
    converted = [
        {**{name: value for name, value in message.items() if name != "tools"}, "role": Role.SYSTEM.value}
        if message["role"] == Role.DEVELOPER
        else message
        for message in messages
    ]
    systems = [message for message in converted if message["role"] == Role.SYSTEM]
    if systems == converted[:1]:
        return converted
    texts = [text for system in systems if (text := _text(system["content"]))]
    merged: _Object = {"role": Role.SYSTEM.value, "content": "\n\n".join(texts)}
    return [merged, *(message for message in converted if message["role"] != Role.SYSTEM)]


def _text(content: JsonValue) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)
