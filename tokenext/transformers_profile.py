"""What a caller of transformers does: hands the request to apply_chat_template as it is.

This is the reference that the engines' rules are told apart from. Messages and tools go to the template with
every field that they have, in the client's order; content and arguments stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate, ChatTemplates
from tokenext.declined import Declined, SkipReason
from tokenext.openai import ChatRequest, CompletionRequest
from tokenext.profiles import InexactReason, Prompt, prompt_of
from tokenext.request_field_names import CHAT_FIELDS, COMPLETION_FIELDS
from tokenext.transformers_rendering import PARAMETERS, apply_chat_template

__all__ = ["TransformersProfile"]

_CHAT_FIELDS: Final = CHAT_FIELDS | {
    *("messages", "tools", "tool_choice", "documents", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message"),
}
_COMPLETION_FIELDS: Final = COMPLETION_FIELDS | {"prompt", "add_special_tokens"}


class TransformersProfile:
    """Also the ground that profiles of engines which call apply_chat_template stand on."""

    name: Final = "transformers"
    chat_fields: ClassVar[frozenset[str]] = _CHAT_FIELDS

    def __init__(
        self,
        templates: ChatTemplates,
        *,
        special_tokens: Mapping[str, str],
        template_kwargs: Mapping[str, JsonValue],
        dedicated_renderer: bool = False,
    ) -> None:
        """`special_tokens` by name; `template_kwargs` are what the caller always passes."""
        self._templates = templates
        self._special_tokens = dict(special_tokens)
        self._template_kwargs = dict(template_kwargs)
        self._dedicated_renderer = dedicated_renderer

    def chat(self, request: ChatRequest) -> Prompt:
        request.require_usual()
        template = self._templates.select(tools=request.tools is not None)
        if template is None:
            raise Declined(SkipReason.NO_CHAT_TEMPLATE)
        if not PARAMETERS.isdisjoint(request.template_kwargs):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)  # an argument given twice
        text = apply_chat_template(
            template,
            request.messages,
            turn=request.turn,
            plain=request.turn.plain,
            variables={**self._special_tokens, **self._template_kwargs, **request.template_kwargs},
            tools=_as_list(request.tools),
            documents=_as_list(request.documents),
            add_generation_prompt=_add_generation_prompt(request),
            continue_final_message=request.continue_final_message,
        )
        return Prompt(text, add_special_tokens=False, inexact=next(self._inexact(request, template), None))

    def completion(self, request: CompletionRequest) -> Prompt:
        known = request.fields <= _COMPLETION_FIELDS
        return prompt_of(request, inexact=None if known else InexactReason.UNKNOWN_FIELD)

    def _inexact(self, request: ChatRequest, template: ChatTemplate) -> Iterator[InexactReason]:
        if self._dedicated_renderer:
            yield InexactReason.DEDICATED_RENDERER
        if "chat_template" in request.fields:
            yield InexactReason.REQUEST_TEMPLATE
        if not request.fields <= self.chat_fields:
            yield InexactReason.UNKNOWN_FIELD
        if template.shows_date:
            yield InexactReason.TEMPLATE_CLOCK


def _add_generation_prompt(request: ChatRequest) -> bool:
    """True unless the request says otherwise, and it does by asking to go on with the last message."""
    if request.continue_final_message and "add_generation_prompt" not in request.fields:
        return False
    return request.add_generation_prompt


def _as_list(values: "tuple[Mapping[str, JsonValue], ...] | None") -> list[JsonValue] | None:
    return None if values is None else [dict(value) for value in values]
