"""What SGLang tokenizes as transformers does, and only that.

SGLang takes the ids of a chat as `input_ids`, and then neither renders nor encodes (serving_chat.py). Its own
way to a prompt calls apply_chat_template too, but after steps that were read and not measured: for tools,
reasoning, template arguments, parts and unfinished messages. So the rule is the narrowest: a conversation of
plain texts that ends with the user. Everything else is good to route by.
"""

from dataclasses import replace
from typing import ClassVar, Final

from tokenext.openai import ChatRequest, CompletionRequest, Message, Role
from tokenext.profiles import InexactReason, Prompt
from tokenext.request_field_names import CHAT_FIELDS
from tokenext.transformers_profile import TransformersProfile

__all__ = ["SglangProfile"]

_CHAT_FIELDS: Final = (CHAT_FIELDS - {"response_format", "audio", "prediction"}) | {
    *("messages", "top_k", "min_p", "min_tokens", "repetition_penalty", "ignore_eos", "stop_token_ids"),
    *("skip_special_tokens", "no_stop_trim", "rid", "regex", "ebnf", "separate_reasoning"),
}
_PLAIN_ROLES: Final = (Role.SYSTEM, Role.USER, Role.ASSISTANT)


class SglangProfile(TransformersProfile):
    name: Final = "sglang"  # type: ignore[misc]  # another engine, with the same ground

    chat_fields: ClassVar[frozenset[str]] = _CHAT_FIELDS

    def chat(self, request: ChatRequest) -> Prompt:
        prompt = super().chat(request)
        plain = (
            all(map(_is_plain, request.messages))
            and request.messages[-1]["role"] == Role.USER
            and not self._has_own_arguments()
        )
        return prompt if plain else replace(prompt, inexact=prompt.inexact or InexactReason.ENGINE_RULE)

    def completion(self, request: CompletionRequest) -> Prompt:
        prompt = super().completion(request)
        return replace(prompt, inexact=prompt.inexact or InexactReason.ENGINE_RULE)

    def _has_own_arguments(self) -> bool:
        """SGLang always passes a reasoning effort on: a template that asks for one may tell."""
        template = self._templates.select(tools=False)
        asks = template is not None and "reasoning_effort" in template.variables
        return asks or bool(self._template_kwargs)


def _is_plain(message: Message) -> bool:
    return (
        message.keys() == {"role", "content"}
        and message["role"] in _PLAIN_ROLES
        and isinstance(message["content"], str)
    )
