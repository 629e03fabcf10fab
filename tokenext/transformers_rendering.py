"""`apply_chat_template` of transformers 5, which vLLM and SGLang call too (utils/chat_template_utils.py)."""

from collections.abc import Mapping, Sequence
from typing import Final

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate
from tokenext.declined import Declined, SkipReason
from tokenext.turns import Turn

__all__ = ["PARAMETERS", "apply_chat_template"]

# Its own parameters, by which no template argument can go. `chat` and the rest are those of the rendering.
PARAMETERS: Final = frozenset(
    {
        *("conversation", "tools", "documents", "chat_template", "add_generation_prompt"),
        *("continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation"),
        *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
        *("conversations", "messages"),
    }
)
_PLAIN: Final = ("role", "content")  # nearly every message, which need not be copied
# Names that a message's reasoning goes by; the first is what templates read.
_REASONING: Final = ("reasoning_content", "thinking", "reasoning")


def apply_chat_template(
    template: ChatTemplate,
    conversation: Sequence[Mapping[str, JsonValue]],
    *,
    variables: Mapping[str, JsonValue],
    tools: JsonValue,
    documents: JsonValue,
    add_generation_prompt: bool,
    continue_final_message: bool,
    turn: Turn | None = None,
    plain: bool = False,
) -> str:
    """The prompt. `variables` are the special tokens and what the request overrides them with. `plain`: each
    message is known to be a role and a text.

    Raises Declined, as transformers raises for a template's error, for both `add_generation_prompt` and
    `continue_final_message`, and for documents that are no list of objects.
    """
    if continue_final_message and add_generation_prompt:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    if documents is not None and not _are_objects(documents):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    messages = list(conversation) if plain else [_message(message) for message in conversation]
    arguments = {
        **variables,
        "tools": tools,
        "documents": documents,
        "add_generation_prompt": add_generation_prompt,
    }
    if continue_final_message:
        return template.render_unfinished(messages, arguments)
    return (turn or Turn()).render(template, messages, arguments)


def _are_objects(values: JsonValue) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _message(message: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Without keys that are null; with reasoning under every name that templates know it by."""
    if isinstance(message, dict) and tuple(message) == _PLAIN and None not in message.values():
        return message
    kept: dict[str, JsonValue] = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    if reasoning is None:
        return kept
    return {"thinking": reasoning, **kept, "reasoning_content": reasoning}
