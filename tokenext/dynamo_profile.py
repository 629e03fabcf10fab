"""What NVIDIA Dynamo 1.6 does to a request before and after its chat template.

Dynamo renders with minijinja after steps of its own. Each rule below was seen at a Dynamo 1.6.1 frontend,
which shows its ids for the annotation `query_instance_id:`, and is explained by the sources under
lib/llm/src/preprocessor/prompt/template/ of ai-dynamo/dynamo. The cases are in
tests/tokenext/test_dynamo_profile.py.

A request that Dynamo refuses is declined, or rendered anyhow: its messages reach Dynamo in both cases.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Final

import orjson

from extproc.verdict import JsonValue
from tokenext.chat_template import ChatTemplate, ChatTemplates
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.dynamo_traits import TemplateTraits, probe
from tokenext.json_numbers import as_serde_reads, read_numbers
from tokenext.minijinja_doubts import Doubts
from tokenext.openai import ChatRequest, CompletionRequest, Message, Role
from tokenext.profiles import InexactReason, Prompt, prompt_of, text_of
from tokenext.turns import without

__all__ = ["DynamoProfile"]

_Object = dict[str, JsonValue]

# Top-level fields seen not to change the ids. Dynamo answers 400 to fields it does not know.
_COMMON_FIELDS: Final = frozenset(
    {
        *("model", "stream", "stream_options", "user", "metadata", "nvext", "cache_salt", "n", "seed"),
        *("max_tokens", "min_tokens", "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos"),
        *("temperature", "top_p", "top_k", "min_p", "logit_bias", "logprobs", "prompt_logprobs"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("guided_json", "guided_regex", "guided_grammar", "guided_choice"),
        *("skip_special_tokens", "return_tokens_as_token_ids"),
    }
)
_CHAT_FIELDS: Final = _COMMON_FIELDS | {
    *("messages", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("chat_template_kwargs", "chat_template_args", "reasoning_effort", "thinking_token_budget"),
    *("add_generation_prompt", "continue_final_message", "modalities", "web_search_options"),
    *("max_completion_tokens", "top_logprobs", "allowed_token_ids"),
    *("store", "service_tier", "prompt_cache_key"),
}
_COMPLETION_FIELDS: Final = _COMMON_FIELDS | {"prompt", "suffix", "echo", "best_of"}

# A message's fields in the order of Dynamo's own types, which `tojson` shows; others are dropped.
_MESSAGE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    Role.SYSTEM: ("role", "content", "name"),
    Role.DEVELOPER: ("role", "content", "name"),
    Role.USER: ("role", "content", "name"),
    Role.ASSISTANT: ("role", "content", "reasoning_content", "refusal", "name", "tool_calls"),
    Role.TOOL: ("role", "content", "tool_call_id"),
    Role.FUNCTION: ("role", "content", "name"),
}
_PLAIN: Final = ("role", "content")  # nearly all messages have just these, and nothing is to be done to them
_NUL: Final = "\0"
# White space to Rust. To Python, U+001C to U+001F are, too.
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Kept by Dynamo in ways that were not measured.
_OPEN_FIELDS: Final = frozenset({"function_call", "audio", "tools"})


class DynamoProfile:
    name: Final = "dynamo"

    def __init__(
        self,
        templates: ChatTemplates,
        *,
        special_tokens: Mapping[str, str],
        template_kwargs: Mapping[str, JsonValue],
        dedicated_renderer: bool = False,
    ) -> None:
        """`special_tokens` by name (bos_token, ...); `template_kwargs` are what the server always passes.

        `dedicated_renderer`: Dynamo has code of its own for this model and passes its template by.
        """
        self._templates = templates.watched()
        self._tokens: _Object = {
            name: special_tokens.get(name) for name in ("bos_token", "eos_token", "unk_token")
        }
        self._template_kwargs = dict(template_kwargs)
        self._dedicated_renderer = dedicated_renderer
        self._traits = {
            template.source: probe(template, self._tokens, with_tools=tools)
            for tools in (True, False)
            if (template := self._templates.select(tools=tools)) is not None
        }

    def chat(self, request: ChatRequest) -> Prompt:
        request.require_usual()
        # Dynamo leaves the tools out where the model may not call them.
        offered = None if request.tool_choice == "none" else request.tools
        template = self._templates.select(tools=offered is not None)
        if template is None:
            raise Declined(SkipReason.NO_CHAT_TEMPLATE)
        traits = self._traits[template.source]
        special: list[Message] = []
        messages: list[Message] = list(request.messages)
        if not request.turn.plain:
            special = [message for message in messages if not _is_plain(message)]
            messages = [message if _is_plain(message) else _message(message, traits) for message in messages]
        arguments, clear = _template_arguments(
            {**self._template_kwargs, **_request_arguments(request)}, request.reasoning_effort
        )
        tools: JsonValue = None if offered is None else [_tool(tool) for tool in offered]
        variables: _Object = {
            **arguments,
            **self._tokens,
            "tools": as_serde_reads(tools) if request.odd_numbers else tools,
            "add_generation_prompt": request.add_generation_prompt,
        }
        doubts = Doubts()
        text = _render(template, request, messages, variables, doubts)
        reasons = self._inexact(request, special, template, traits)
        inexact = next(reasons, None) or (None if clear else InexactReason.TEMPLATE_KWARGS)
        if inexact is None and doubts.found:
            inexact = InexactReason.TEMPLATE_DIALECT
        return Prompt(text, add_special_tokens=False, inexact=inexact)

    def completion(self, request: CompletionRequest) -> Prompt:
        known = request.fields <= _COMPLETION_FIELDS
        # Unlike vLLM, Dynamo adds no special tokens to a completion's prompt.
        prompt = prompt_of(
            request, inexact=None if known else InexactReason.UNKNOWN_FIELD, add_special_tokens=False
        )
        return replace(prompt, text=without(_NUL, prompt.text))

    def _inexact(
        self,
        request: ChatRequest,
        special: list[Message],
        template: ChatTemplate,
        traits: TemplateTraits,
    ) -> Iterator[InexactReason]:
        """Every reason for doubt, the gravest first. `special`: the messages that are not plain."""
        if self._dedicated_renderer:
            yield InexactReason.DEDICATED_RENDERER
        if not request.fields <= _CHAT_FIELDS:
            yield InexactReason.UNKNOWN_FIELD
        if template.shows_date:
            yield InexactReason.TEMPLATE_CLOCK
        # It then ends the prompt by the last part that has text, whatever white space follows.
        if request.continue_final_message and isinstance(request.messages[-1].get("content"), list):
            yield InexactReason.UNFINISHED_MESSAGE
        has_parts = any(isinstance(message.get("content"), list) for message in special)
        if traits.wants_parts or (has_parts and template.content_format is ContentFormat.PARTS):
            yield InexactReason.CONTENT_FORMAT
        if any(message[name] is not None for message in special for name in _OPEN_FIELDS & message.keys()):
            yield InexactReason.MESSAGE_FIELD
        # For other templates Dynamo writes reasoning into the content as a <think> block.
        if "reasoning_content" not in template.source and any(map(_reasoning, special)):
            yield InexactReason.REASONING
        if _reordered(request, traits):
            yield InexactReason.MESSAGE_ORDER


def _reordered(request: ChatRequest, traits: TemplateTraits) -> bool:
    """Whether Dynamo renders other messages than these, for a template that would refuse them."""
    if not (traits.refuses_later_system or traits.refuses_user_after_user):
        return False
    roles = [message["role"] for message in request.messages]
    later_system = traits.refuses_later_system and Role.SYSTEM in roles[1:]
    return later_system or (traits.refuses_user_after_user and (Role.USER, Role.USER) in pairwise(roles))


def _render(
    template: ChatTemplate,
    request: ChatRequest,
    messages: list[Message],
    variables: _Object,
    doubts: Doubts,
) -> str:
    if not request.continue_final_message:
        return request.turn.render(template, messages, variables, doubts, dropped=_NUL)
    if request.add_generation_prompt or not messages[-1].get("content"):
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)  # 400 there
    return without(_NUL, template.render_unfinished(messages, variables, doubts, spaces=_SPACES))


def _reasoning(message: Message) -> JsonValue:
    return message.get("reasoning_content") or message.get("reasoning")


def _is_plain(message: Message) -> bool:
    """Whether nothing is to be done: a role, then text. The very same object is then known again at once."""
    return (
        len(message) == len(_PLAIN) and type(message.get("content")) is str and next(iter(message)) == "role"
    )


def _message(message: Message, traits: TemplateTraits) -> _Object:
    role = str(message["role"])
    values = dict(message)
    if (reasoning := values.pop("reasoning", None)) is not None:
        # One field by two names: both are a duplicate, hence 400.
        if values.get("reasoning_content") is not None:
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
        values["reasoning_content"] = reasoning
    content = values.get("content")
    if isinstance(content, list) and content and not traits.wants_parts:
        values["content"] = text_of(content)
    elif content is None and role != Role.ASSISTANT:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    calls = values.get("tool_calls")
    if isinstance(calls, list):
        values["tool_calls"] = [_tool_call(call, traits) for call in calls if isinstance(call, dict)]
    return {name: values[name] for name in _MESSAGE_FIELDS[role] if values.get(name) is not None}


def _tool_call(call: _Object, traits: TemplateTraits) -> _Object:
    function = call["function"]
    assert isinstance(function, dict)  # openai.parse saw to it
    arguments = function["arguments"]
    assert isinstance(arguments, str)
    parsed: JsonValue = arguments
    if arguments.strip():
        try:
            parsed = as_serde_reads(read_numbers(arguments.encode())[0])
        except orjson.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    given = arguments if traits.prints_string_arguments else parsed
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": given},
    }


def _tool(tool: Mapping[str, JsonValue]) -> _Object:
    """A tool as templates see it: known fields in Dynamo's order, and what is missing put behind them."""
    given = tool["function"]
    assert isinstance(given, dict)  # openai.parse saw to it
    names = ("name", "description", "parameters", "strict")
    function: _Object = {name: given[name] for name in names if given.get(name) is not None}
    parameters = function.get("parameters")
    if isinstance(parameters, dict):
        missing: _Object = {"type": "object", "properties": {}}
        function["parameters"] = parameters | {
            name: value for name, value in missing.items() if name not in parameters
        }
    function.setdefault("description", "")
    return {"type": "function", "function": function}


def _request_arguments(request: ChatRequest) -> _Object:
    """Dynamo reads both names as one field, and refuses a body that has both. Raises Declined."""
    if request.template_args is None:
        arguments = dict(request.template_kwargs)
    elif "chat_template_kwargs" in request.fields:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)
    else:
        arguments = dict(request.template_args)
    if not request.odd_numbers:
        return arguments
    return {name: as_serde_reads(value) for name, value in arguments.items()}


_THINKING_MODES: Final = {"enabled": True, "disabled": False}


def _template_arguments(kwargs: _Object, effort: str | None) -> tuple[_Object, bool]:
    """The template arguments, and whether Dynamo's reading of them is clear.

    Dynamo sets enable_thinking, thinking and thinking_mode together, from whichever of them is given, else
    from the reasoning effort. Where they contradict each other its order is not documented.
    """
    effort_given = effort if effort is not None else kwargs.get("reasoning_effort")
    flags = {
        _THINKING_MODES.get(str(kwargs[name])) if name == "thinking_mode" else kwargs[name]
        for name in ("thinking", "enable_thinking", "thinking_mode")
        if isinstance(kwargs.get(name), bool | str)
    }
    unclear = any(
        not isinstance(kwargs[name], bool | str)
        for name in ("thinking", "enable_thinking", "thinking_mode")
        if name in kwargs
    )
    if unclear or len(flags) > 1 or not flags <= {True, False} or not isinstance(effort_given, str | None):
        return kwargs, False
    if effort_given is None and not flags:
        return kwargs, True
    on = flags.pop() is True if flags else effort_given != "none"
    thinking: _Object = {
        "thinking": on,
        "enable_thinking": on,
        "thinking_mode": "enabled" if on else "disabled",
    }
    if effort_given is not None:
        thinking["reasoning_effort"] = effort_given
    return {**kwargs, **thinking}, True
