"""The seam to an engine's habits: what a model server does around its chat template."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate, ChatTemplates
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.openai import ChatRequest, CompletionRequest, Message

__all__ = ["InexactReason", "PlainProfile", "Profile", "Prompt", "text_of"]


class InexactReason(StrEnum):
    """Why ids are good to route by but not proved to be the engine's own; safe as a metric label.

    It is the `reason` of a token record with `engine_exact` false.
    """

    UNKNOWN_FIELD = "unknown_field"  # a top-level field that might change the prompt
    TEMPLATE_KWARGS = "template_kwargs"  # template arguments that the engine reads in its own way
    TEMPLATE_CLOCK = "template_clock"  # the prompt shows the date, and the engine has its own
    CONTENT_FORMAT = "content_format"  # the template takes content as a list of parts
    MESSAGE_FIELD = "message_field"  # a message field that engines treat differently
    MESSAGE_ORDER = "message_order"  # an order of roles that the engine rewrites for this template
    REASONING = "reasoning"  # the engine moves reasoning into the content for this template
    UNFINISHED_MESSAGE = "unfinished_message"  # continue_final_message where the last content is a list
    DEDICATED_RENDERER = "dedicated_renderer"  # the engine does not use the model's template at all
    PARITY = "parity"  # the running engine was seen to compute other ids for this model (verification.py)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text to encode, and how. `inexact` is None where it is the engine's own text."""

    text: str
    add_special_tokens: bool
    inexact: InexactReason | None = None


class Profile(Protocol):
    """Turns requests for one model into prompts as one kind of model server does."""

    @property
    def name(self) -> str: ...

    def chat(self, request: ChatRequest) -> Prompt:
        """Render a chat. Raises Declined."""
        ...

    def completion(self, request: CompletionRequest) -> Prompt:
        """The prompt of a completion. Raises Declined."""
        ...


def text_of(parts: list[JsonValue]) -> str:
    """The text of a list of text parts, as vLLM and Dynamo join it for templates that take a string."""
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict))


class PlainProfile:
    """Hands the request to the template as it is: the fake of the seam."""

    name: Final = "plain"

    def __init__(self, templates: ChatTemplates, variables: Mapping[str, JsonValue]) -> None:
        self._templates = templates
        self._variables = variables

    def chat(self, request: ChatRequest) -> Prompt:
        template = self._templates.select(tools=bool(request.tools))
        if template is None:
            raise Declined(SkipReason.NO_CHAT_TEMPLATE)
        tools: list[JsonValue] | None = None
        if request.tools is not None:
            tools = [dict(tool) for tool in request.tools]
        variables: dict[str, JsonValue] = {
            **self._variables,
            **request.template_kwargs,
            "tools": tools,
            "add_generation_prompt": request.add_generation_prompt,
        }
        messages = [self._flatten(message, template) for message in request.messages]
        render = template.render_unfinished if request.continue_final_message else template.render
        return Prompt(render(messages, variables), add_special_tokens=False)

    @staticmethod
    def _flatten(message: Message, template: ChatTemplate) -> Message:
        content = message.get("content")
        if isinstance(content, list) and template.content_format is ContentFormat.STRING:
            return {**message, "content": text_of(content)}
        return message

    def completion(self, request: CompletionRequest) -> Prompt:
        return Prompt(request.prompt, add_special_tokens=True)
