"""What NVIDIA Dynamo finds out about a chat template before it serves: by rendering probes with it.

The probes are those of lib/llm/src/preprocessor/prompt/template/formatters.rs of ai-dynamo/dynamo.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate
from tokenext.declined import Declined

__all__ = ["TemplateTraits", "probe"]

_Object = dict[str, JsonValue]

_SYSTEM: Final[_Object] = {"role": "system", "content": "s"}
_USER: Final[_Object] = {"role": "user", "content": "u"}
_ASSISTANT: Final[_Object] = {"role": "assistant", "content": "a"}
_TEXT: Final = "template_test"
_ARGUMENTS: Final = '{"probe": "value"}'
_TOOL: Final[_Object] = {
    "type": "function",
    "function": {"name": "probe", "description": "", "parameters": {"type": "object", "properties": {}}},
}
_CALL: Final[_Object] = {
    "id": "call_probe",
    "type": "function",
    "function": {"name": "probe", "arguments": _ARGUMENTS},
}


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """What Dynamo knows of a template."""

    wants_parts: bool  # content as a string does not come through, as a list it does
    prints_string_arguments: bool  # a tool call's arguments are printed as the string they are
    refuses_later_system: bool  # a system message after the first raises: Dynamo makes it a user's
    refuses_user_after_user: bool  # Dynamo joins the two


def probe(template: ChatTemplate, tokens: Mapping[str, JsonValue], *, with_tools: bool) -> TemplateTraits:
    """Render the probes. `tokens` are the special tokens, `with_tools` tells what the template serves for."""
    bare: _Object = {"add_generation_prompt": False}
    full: _Object = {**bare, **tokens, "tools": [_TOOL] if with_tools else None}

    def rendered(variables: _Object, *messages: _Object) -> str | None:
        try:
            return template.render(messages, variables)
        except Declined:
            return None

    def refuses(*messages: _Object) -> bool:
        return rendered(full, *messages) is None

    as_parts = rendered(bare, {"role": "user", "content": [{"type": "text", "text": _TEXT}]}) or ""
    as_string = rendered(bare, {"role": "user", "content": _TEXT}) or ""
    called = rendered(
        {**full, "add_generation_prompt": True},
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_probe", "content": "r"},
    )
    takes_system = not refuses(_SYSTEM, _USER)
    return TemplateTraits(
        wants_parts=_TEXT in as_parts and _TEXT not in as_string,
        prints_string_arguments="arguments is string" in template.source and _ARGUMENTS in (called or ""),
        refuses_later_system=takes_system
        and (refuses(_SYSTEM, _USER, _SYSTEM) or refuses(_SYSTEM, _USER, _ASSISTANT, _SYSTEM, _USER)),
        refuses_user_after_user=takes_system and refuses(_SYSTEM, _USER, _USER),
    )
