"""What vLLM 0.32 does to a request around its chat template.

Seen at a vLLM 0.32.0 render server (`vllm launch render`), explained by vllm/renderers (online_renderer.py,
hf.py, params.py) and vllm/entrypoints/openai/chat_completion/protocol.py. Messages: vllm_messages.py. The
server's own flags are assumed to be at their defaults, `--default-chat-template-kwargs` apart.

A request that vLLM refuses is declined, or rendered anyhow where it is refused before ids are looked at.
"""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Final

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate, ChatTemplates
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.openai import ChatRequest, CompletionRequest, Message, Role
from tokenext.profiles import InexactReason, Prompt, prompt_of
from tokenext.request_field_names import VLLM_CHAT_FIELDS, VLLM_COMPLETION_FIELDS
from tokenext.request_fields import require
from tokenext.transformers_rendering import PARAMETERS, apply_chat_template
from tokenext.vllm_messages import developers_as_system, plain_texts, rebuilt

__all__ = ["VllmProfile"]

_Object = dict[str, JsonValue]
_ROLE: Final = itemgetter("role")

_CHAT_FIELDS: Final = VLLM_CHAT_FIELDS | {
    *("messages", "tools", "tool_choice", "documents", "chat_template_kwargs", "reasoning_effort"),
    *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
    *("truncate_prompt_tokens", "truncation_side"),
}
_COMPLETION_FIELDS: Final = VLLM_COMPLETION_FIELDS | {
    *("prompt", "add_special_tokens", "truncate_prompt_tokens", "truncation_side"),
}
# Template arguments that are the request's own fields by another way, and do what those do.
_SHARED: Final = frozenset({"tools", "documents", "add_generation_prompt", "continue_final_message"})
# vLLM answers 400 to these.
_REFUSED: Final = frozenset({"conversation", "messages"})
# The only key of a text part besides its own two that clients are known to send.
_PART_KEYS: Final = frozenset({"type", "text", "cache_control"})


class VllmProfile:
    name: Final = "vllm"

    def __init__(
        self,
        templates: ChatTemplates,
        *,
        special_tokens: Mapping[str, str],
        template_kwargs: Mapping[str, JsonValue],
        dedicated_renderer: bool = False,
    ) -> None:
        """`special_tokens` by name; `template_kwargs` are the server's --default-chat-template-kwargs.

        `dedicated_renderer`: vLLM has code of its own for this model and passes its template by.
        """
        self._templates = templates
        self._special_tokens = dict(special_tokens)
        self._template_kwargs = dict(template_kwargs)
        self._dedicated_renderer = dedicated_renderer
        self._shows_all = {
            template.source: _shows_all(template)
            for tools in (True, False)
            if (template := templates.select(tools=tools)) is not None
        }

    def chat(self, request: ChatRequest) -> Prompt:
        arguments = _template_arguments(request, self._template_kwargs)
        if not _REFUSED.isdisjoint(arguments) or not _are_tools(arguments.get("tools")):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        template = self._templates.select(tools="tools" in arguments)
        if template is None:
            raise Declined(SkipReason.NO_CHAT_TEMPLATE)
        roles = set(map(_ROLE, request.messages))
        plain = (
            request.turn.plain
            and template.vllm_content_format is ContentFormat.STRING
            and Role.DEVELOPER.value not in roles
        )
        text = apply_chat_template(
            template,
            plain_texts(request.messages) if plain else _conversation(request, template),
            turn=request.turn,
            plain=plain,
            # Only what the template looks up reaches it: that is how vLLM keeps surprises out.
            variables={
                **self._special_tokens,
                **{
                    name: value
                    for name, value in arguments.items()
                    if name in template.variables and name not in PARAMETERS
                },
            },
            tools=arguments.get("tools"),
            documents=arguments.get("documents"),
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
        )
        return Prompt(
            text,
            add_special_tokens=request.add_special_tokens,
            inexact=next(self._inexact(request, template, arguments, roles), None),
            truncation=request.truncation,
        )

    def completion(self, request: CompletionRequest) -> Prompt:
        if request.prompt == "":
            raise Declined(SkipReason.EMPTY_PROMPT)  # 400 there, whatever the tokenizer would add
        known = request.fields <= _COMPLETION_FIELDS
        return prompt_of(
            request,
            inexact=None if known else InexactReason.UNKNOWN_FIELD,
            truncation=request.truncation,
        )

    def _inexact(
        self, request: ChatRequest, template: ChatTemplate, arguments: _Object, roles: set[JsonValue]
    ) -> Iterator[InexactReason]:
        """Every reason for doubt, the gravest first."""
        special = () if request.turn.plain else request.messages
        if self._dedicated_renderer:
            yield InexactReason.DEDICATED_RENDERER
        if "chat_template" in request.fields or "chat_template" in arguments:
            yield InexactReason.REQUEST_TEMPLATE
        if not request.fields <= _CHAT_FIELDS:
            yield InexactReason.UNKNOWN_FIELD
        if template.shows_date:
            yield InexactReason.TEMPLATE_CLOCK
        # Parameters of transformers' own, which change how it renders and tokenizes.
        if not (PARAMETERS - _SHARED).isdisjoint(arguments):
            yield InexactReason.TEMPLATE_KWARGS
        if request.unusual is not None or any(map(_has_open_field, special)):
            yield InexactReason.MESSAGE_FIELD
        if template.vllm_content_format is ContentFormat.PARTS and any(
            not _PART_KEYS.issuperset(part)
            for message in special
            if isinstance(parts := message.get("content"), list)
            for part in parts
            if isinstance(part, dict)
        ):
            yield InexactReason.CONTENT_FORMAT
        shows_all = self._shows_all[template.source]
        # Versions of transformers differ in these: whether reasoning is there as `thinking`, too, and whether
        # a developer's missing tools are there as null.
        if (shows_all or template.reads("thinking")) and any(map(_reasons, special)):
            yield InexactReason.REASONING
        if (shows_all or template.reads("tools")) and Role.DEVELOPER.value in roles:
            yield InexactReason.MESSAGE_FIELD


def _conversation(request: ChatRequest, template: ChatTemplate) -> list[_Object]:
    messages = [rebuilt(message, template.vllm_content_format) for message in request.messages]
    # vLLM looks for the word in quotes, wherever it stands.
    if (
        Role.DEVELOPER.value in [message["role"] for message in messages]
        and '"developer"' not in template.source
        and "'developer'" not in template.source
    ):
        return developers_as_system(messages)
    return messages


def _template_arguments(request: ChatRequest, server: Mapping[str, JsonValue]) -> _Object:
    """Server defaults, tools, the request's template arguments, its own fields: the later ones win.

    A value that is null or "auto" counts as not given; both ways to name thinking are one.
    """
    fields: _Object = {}
    if request.documents is not None:
        fields["documents"] = [dict(document) for document in request.documents]
    if request.reasoning_effort is not None:
        fields["reasoning_effort"] = request.reasoning_effort
        if "enable_thinking" not in request.template_kwargs:
            fields["enable_thinking"] = request.reasoning_effort != "none"
    tools: _Object = {}
    if request.tools is not None:
        tools["tools"] = [_tool(tool) for tool in request.tools]
    return {**server, **tools, **_given({**request.template_kwargs, **_given(fields)})}


def _given(values: Mapping[str, JsonValue]) -> _Object:
    return {name: value for name, value in values.items() if value is not None and value != "auto"}


def _are_tools(tools: JsonValue) -> bool:
    return tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools))


def _tool(tool: Mapping[str, JsonValue]) -> _Object:
    """A tool through vLLM's request model: known keys in its order, null defaults kept but for two."""
    function = tool["function"]
    assert isinstance(function, dict)  # openai.parse saw to it
    deferred = tool.get("defer_loading")
    require(isinstance(deferred, bool | None) and isinstance(function.get("defer_loading"), bool | None))
    shown: _Object = {name: function.get(name) for name in ("name", "description", "parameters")}
    inner = function.get("defer_loading")
    optional: _Object = {
        "strict": function.get("strict"),
        "defer_loading": deferred if inner is None else inner,
    }
    shown |= {name: value for name, value in optional.items() if value is not None}
    whole: _Object = {"type": "function", "function": shown}
    return whole | ({} if deferred is None else {"defer_loading": deferred})


def _has_open_field(message: Message) -> bool:
    """Fields that versions of transformers treat differently, or that only some templates know."""
    if len(message) == len(("role", "content")) and "content" in message:
        return False  # as nearly all messages are
    return (
        ("tool_call_id" in message and message["tool_call_id"] is None)
        or message.get("task") is not None
        or message.get("tools") is not None
    )


def _shows_all(template: ChatTemplate) -> bool:
    """Whether the template prints messages whole, so that every field of theirs is seen."""
    said: _Object = {"role": "assistant", "content": "a", "reasoning": "r", "reasoning_content": "r"}
    asked: _Object = {"role": "user", "content": "u"}
    try:
        plain, marked = (
            template.render([asked, message, asked], {"tools": None, "add_generation_prompt": True})
            for message in (said, {_MARK: _MARK, **said})
        )
    except Declined:
        return False
    return plain != marked


_MARK: Final = "a field that no template asks for"


def _reasons(message: Message) -> bool:
    return message.get("reasoning") is not None or message.get("reasoning_content") is not None
