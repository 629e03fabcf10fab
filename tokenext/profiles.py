"""The seam to an engine's habits: what a model server does around its chat template."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate, ChatTemplates
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.openai import ChatRequest, CompletionRequest, Message, Truncation

__all__ = ["InexactReason", "PlainProfile", "Profile", "ProfileName", "Prompt", "prompt_of", "text_of"]


class ProfileName(StrEnum):
    """The catalog's `profile`: whose way to a prompt counts as the engine's own."""

    DYNAMO = "dynamo"
    VLLM = "vllm"
    SGLANG = "sglang"
    TRANSFORMERS = "transformers"


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
    TEMPLATE_DIALECT = "template_dialect"  # the engine's template language gives other text here
    TOKENIZER = "tokenizer"  # the engine's own is not at hand: `tokenext bundle` makes it
    REQUEST_TEMPLATE = "request_template"  # the request brings a chat template, which nobody vouches for
    TRUNCATION = "truncation"  # the engine truncates, and where is not known
    OVER_LENGTH = "over_length"  # longer than the model takes: the engine's own error is the answer
    ENGINE_RULE = "engine_rule"  # outside of what the engine is known to tokenize alike
    PARITY = "parity"  # the running engine was seen to compute other ids for this model (verification.py)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text to encode, and how. `inexact` is None where it is the engine's own text.

    `ids` are the client's own, and stand instead of the text. `truncation` is done to either.
    """

    text: str
    add_special_tokens: bool
    inexact: InexactReason | None = None
    ids: TokenIds | None = None
    truncation: Truncation | None = None


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


def prompt_of(
    request: CompletionRequest,
    *,
    inexact: InexactReason | None,
    add_special_tokens: bool | None = None,
    truncation: Truncation | None = None,
) -> Prompt:
    """A completion's prompt as it is. `add_special_tokens` None: as the request says."""
    ids, text = (None, request.prompt) if isinstance(request.prompt, str) else (request.prompt, "")
    special = request.add_special_tokens if add_special_tokens is None else add_special_tokens
    return Prompt(text, special, inexact, ids, truncation)


class PlainProfile:
    """Hands the request to the template as it is: the fake of the seam."""

    name: Final = "plain"

    def __init__(self, templates: ChatTemplates, variables: Mapping[str, JsonValue]) -> None:
        self._templates = templates
        self._variables = variables

    def chat(self, request: ChatRequest) -> Prompt:
        request.require_usual()
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
        return prompt_of(request, inexact=None)
