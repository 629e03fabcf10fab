"""Each expectation here was seen at a Dynamo 1.6.1 frontend, asked for its own ids of the same request."""

import json
from datetime import UTC, datetime

import pytest

from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined, SkipReason
from tokenext.dynamo_profile import DynamoProfile
from tokenext.openai import Api, ChatRequest, CompletionRequest, parse, read_body
from tokenext.profiles import InexactReason, Prompt

# Shows what a template is given. Mentions reasoning_content, so that reasoning is left to it.
SHOW = """\
{{ messages | tojson }}
{{ tools | tojson }}
{% for name in ['enable_thinking', 'thinking', 'thinking_mode', 'reasoning_effort', 'foo'] %}{% endfor %}
{%- if enable_thinking is defined %}enable_thinking={{ enable_thinking }};{% endif %}
{%- if thinking is defined %}thinking={{ thinking }};{% endif %}
{%- if thinking_mode is defined %}thinking_mode={{ thinking_mode }};{% endif %}
{%- if reasoning_effort is defined %}reasoning_effort={{ reasoning_effort }};{% endif %}
{%- if foo is defined %}foo={{ foo }};{% endif %}
{{- '' }}bos={{ bos_token }};eos={{ eos_token }};unk={{ unk_token }};add={{ add_generation_prompt }}
{#- reasoning_content #}"""
# Prints the string of a tool call's arguments as it is.
SHOW_STRING_ARGUMENTS = (
    SHOW
    + "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    + ("{% if c.function.arguments is string %}{{ c.function.arguments }}{% endif %}{% endfor %}{% endfor %}")
)
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def profile(*sources: str, **options: object) -> DynamoProfile:
    names = ("default", "tool_use")
    templates = ChatTemplates(dict(zip(names, sources, strict=False)), now=lambda: datetime.now(UTC))
    settings = {"special_tokens": {"eos_token": "<e>", "pad_token": "<p>"}, "template_kwargs": {}, **options}
    return DynamoProfile(templates, **settings)


def chat_request(*messages: dict, **fields: object) -> ChatRequest:
    body = {"model": "m", "messages": messages or [USER], **fields}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return request


def ask(source: str, *messages: dict, **fields: object) -> Prompt:
    return profile(source).chat(chat_request(*messages, **fields))


def shown(*messages: dict, **fields: object) -> list[dict]:
    return json.loads(ask(SHOW, *messages, **fields).text.splitlines()[0])


def shown_tools(*functions: dict, **fields: object) -> list[dict] | None:
    tools = [{"type": "function", "function": function} for function in functions]
    return json.loads(ask(SHOW, tools=tools, **fields).text.splitlines()[1])


def variables(**fields: object) -> str:
    return ask(SHOW, **fields).text.splitlines()[2].partition("bos=")[0]


def declined(source: str, *messages: dict, **fields: object) -> SkipReason:
    with pytest.raises(Declined) as caught:
        ask(source, *messages, **fields)
    return caught.value.reason


class TestMessages:
    def test_known_fields_in_dynamos_order_and_nothing_else(self):
        messages = [
            {"content": "c", "name": "n", "role": "user", "foo": 1, "tool_call_id": "x"},
            {
                "tool_calls": [{**CALL, "index": 0}],
                "refusal": "no",
                "name": "n",
                "content": "c",
                "role": "assistant",
            },
            {"tool_call_id": "c1", "name": "f", "role": "tool", "content": "r"},
        ]
        assert [list(message) for message in shown(*messages)] == [
            ["role", "content", "name"],
            ["role", "content", "refusal", "name", "tool_calls"],
            ["role", "content", "tool_call_id"],
        ]

    def test_null_fields_are_dropped(self):
        assert shown({**USER, "name": None}, {"role": "assistant", "content": None}) == [
            USER,
            {"role": "assistant"},
        ]

    def test_only_an_assistant_may_say_nothing(self):
        assert declined(SHOW, {"role": "user", "content": None}) is SkipReason.BAD_REQUEST_SHAPE
        assert declined(SHOW, {"role": "system"}) is SkipReason.BAD_REQUEST_SHAPE

    def test_the_developer_role_stays(self):
        assert shown({"role": "developer", "content": "d"})[0]["role"] == "developer"

    def test_text_parts_are_joined_by_line_ends(self):
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        assert shown({"role": "tool", "tool_call_id": "x", "content": parts})[0]["content"] == "a\nb"

    def test_an_empty_list_of_parts_stays(self):
        assert shown({"role": "user", "content": []})[0]["content"] == []

    def test_reasoning_is_another_name_of_reasoning_content(self):
        said = {"role": "assistant", "content": "x", "reasoning": "hm"}
        assert shown(said) == [{"role": "assistant", "content": "x", "reasoning_content": "hm"}]
        assert declined(SHOW, {**said, "reasoning_content": "hm"}) is SkipReason.BAD_REQUEST_SHAPE

    def test_nul_is_taken_out_of_the_prompt(self):
        assert ask(CHAT_TEMPLATE, {"role": "user", "content": "a\0b"}).text.startswith(
            "<|im_start|>user\nab<"
        )


class TestToolCalls:
    def said(self, arguments: str) -> dict:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    def arguments(self, source: str, given: str) -> object:
        message = json.loads(ask(source, self.said(given)).text.splitlines()[0])[0]
        return message["tool_calls"][0]["function"]["arguments"]

    def test_arguments_are_parsed_for_the_template(self):
        assert self.arguments(SHOW, '{"b":3, "a": "\\u00e9"}') == {"b": 3, "a": "é"}

    def test_arguments_stay_a_string_for_a_template_that_prints_strings(self):
        assert self.arguments(SHOW_STRING_ARGUMENTS, '{"b":3, "a": "\\u00e9"}') == '{"b":3, "a": "\\u00e9"}'

    def test_a_template_that_only_refuses_strings_gets_them_parsed(self):
        refusing = SHOW + (
            "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.function.arguments is string %}"
            "{{ raise_exception('no') }}{% endif %}{% endfor %}{% endfor %}"
        )
        assert self.arguments(refusing, '{"a":1}') == {"a": 1}

    @pytest.mark.parametrize("blank", ["", "  "])
    def test_blank_arguments_stay_as_they_are(self, blank):
        assert self.arguments(SHOW, blank) == blank

    @pytest.mark.parametrize("arguments", ["no json", "[1]", "3", '{"a":1e400}', '{"a":"\\ud800"}'])
    def test_arguments_that_are_no_object_are_a_400_there(self, arguments):
        assert declined(SHOW, self.said(arguments)) is SkipReason.BAD_REQUEST_SHAPE

    def test_a_missing_type_is_function_and_an_empty_list_stays(self):
        call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
        first, second = shown(
            {"role": "assistant", "tool_calls": [call]},
            {"role": "assistant", "content": "x", "tool_calls": []},
        )
        assert first["tool_calls"][0]["type"] == "function"
        assert second["tool_calls"] == []


class TestTools:
    def test_known_fields_in_dynamos_order_and_a_description_behind_them(self):
        given = {"strict": False, "extra": 1, "parameters": {"type": "object", "properties": {}}, "name": "f"}
        (tool,) = shown_tools(given)
        assert list(tool) == ["type", "function"]
        assert list(tool["function"]) == ["name", "parameters", "strict", "description"]
        assert tool["function"]["description"] == ""

    def test_null_fields_count_as_missing(self):
        (tool,) = shown_tools({"name": "f", "description": None, "parameters": None, "strict": None})
        assert tool["function"] == {"name": "f", "description": ""}

    @pytest.mark.parametrize(
        ("parameters", "names"),
        [
            ({}, ["type", "properties"]),
            ({"type": "object"}, ["type", "properties"]),
            ({"properties": {}, "z": 1}, ["properties", "z", "type"]),
            ({"properties": {}, "type": "object"}, ["properties", "type"]),
        ],
    )
    def test_parameters_get_the_type_and_properties_they_lack(self, parameters, names):
        (tool,) = shown_tools({"name": "f", "description": "d", "parameters": parameters})
        assert list(tool["function"]["parameters"]) == names

    def test_tools_that_may_not_be_called_are_left_out(self):
        assert shown_tools({"name": "f"}, tool_choice="none") is None
        assert shown_tools({"name": "f"}, tool_choice="required") is not None

    def test_the_request_is_not_changed(self):
        request = chat_request(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
        profile(SHOW).chat(request)
        assert request.tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)

    def test_a_template_of_its_own_serves_requests_with_tools(self):
        both = profile("plain", "with tools")
        assert (
            both.chat(chat_request(tools=[{"type": "function", "function": {"name": "f"}}])).text
            == "with tools"
        )
        assert both.chat(chat_request()).text == "plain"


class TestTemplateArguments:
    ON = "enable_thinking=True;thinking=True;thinking_mode=enabled;"
    OFF = "enable_thinking=False;thinking=False;thinking_mode=disabled;"

    def test_nothing_is_said_of_thinking_unless_asked(self):
        assert variables() == ""

    @pytest.mark.parametrize("effort", ["minimal", "low", "high"])
    def test_an_effort_turns_thinking_on(self, effort):
        assert variables(reasoning_effort=effort) == f"{self.ON}reasoning_effort={effort};"

    def test_no_effort_turns_it_off(self):
        assert variables(reasoning_effort="none") == f"{self.OFF}reasoning_effort=none;"

    @pytest.mark.parametrize(
        "kwargs", [{"enable_thinking": False}, {"thinking": False}, {"thinking_mode": "disabled"}]
    )
    def test_each_name_sets_all_three_and_outweighs_the_effort(self, kwargs):
        assert variables(chat_template_kwargs=kwargs) == self.OFF
        assert (
            variables(chat_template_kwargs=kwargs, reasoning_effort="high")
            == f"{self.OFF}reasoning_effort=high;"
        )

    def test_an_effort_among_the_kwargs_counts_too_and_the_fields_wins(self):
        kwargs = {"reasoning_effort": "none"}
        assert variables(chat_template_kwargs=kwargs) == f"{self.OFF}reasoning_effort=none;"
        assert (
            variables(chat_template_kwargs=kwargs, reasoning_effort="low")
            == f"{self.ON}reasoning_effort=low;"
        )

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"enable_thinking": None},
            {"enable_thinking": "x"},
            {"enable_thinking": 0},
            {"thinking": {"type": "disabled"}},
            {"thinking_mode": "chat"},
            {"thinking_mode": ["x"]},
            {"thinking": True, "enable_thinking": False},
            {"reasoning_effort": 3},
        ],
    )
    def test_what_is_unclear_is_not_exact(self, kwargs):
        assert ask(SHOW, chat_template_kwargs=kwargs).inexact is InexactReason.TEMPLATE_KWARGS

    def test_kwargs_reach_the_template_but_replace_nothing_of_the_requests(self):
        kwargs = {"foo": 1, "messages": [], "tools": [1], "eos_token": "x", "add_generation_prompt": False}
        prompt = ask(SHOW, chat_template_kwargs=kwargs)
        assert prompt.text.splitlines()[0] == json.dumps([USER])
        assert prompt.text.splitlines()[1] == "null"
        assert prompt.text.endswith("foo=1;bos=None;eos=<e>;unk=None;add=True")

    def test_chat_template_args_are_another_name_of_the_kwargs_but_not_both(self):
        assert "foo=1;" in ask(SHOW, chat_template_args={"foo": 1}).text
        assert declined(SHOW, chat_template_args={}, chat_template_kwargs={}) is SkipReason.BAD_REQUEST_SHAPE

    def test_integers_beyond_64_bits_are_floats(self):
        kwargs = {"foo": [2**64, -(2**63) - 1, 2**64 - 1]}
        assert "foo=[1.8446744073709552e+19, -9.223372036854776e+18, 18446744073709551615];" in variables(
            chat_template_kwargs=kwargs
        )
        (tool,) = shown_tools({"name": "f", "parameters": {"type": "object", "properties": {}, "x": 2**70}})
        assert tool["function"]["parameters"]["x"] == 2.0**70

    def test_the_models_own_kwargs_yield_to_the_requests(self):
        own = profile(SHOW, template_kwargs={"foo": 1})
        assert "foo=1;" in own.chat(chat_request()).text
        assert "foo=2;" in own.chat(chat_request(chat_template_kwargs={"foo": 2})).text


class TestUnfinishedMessages:
    SAID = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "so "})

    def test_the_prompt_ends_with_the_last_message(self):
        prompt = ask(CHAT_TEMPLATE, *self.SAID, continue_final_message=True, add_generation_prompt=False)
        assert prompt.text.endswith("<|im_start|>assistant\nso ")
        assert prompt.inexact is None

    def test_not_together_with_a_generation_prompt(self):
        assert (
            declined(CHAT_TEMPLATE, *self.SAID, continue_final_message=True) is SkipReason.BAD_REQUEST_SHAPE
        )

    def test_white_space_at_its_end_is_that_of_rust(self):
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        source = "{% for m in messages %}{{ m.content | trim }}|{% endfor %}"
        assert ask(source, {"role": "assistant", "content": "a \x1e\x1f"}, **fields).text == "a \x1e\x1f"
        assert ask(source, {"role": "assistant", "content": "a\x1f \x85\u2003"}, **fields).text == "a\x1f"

    @pytest.mark.parametrize("content", [None, ""])
    def test_not_without_text(self, content):
        silent = {"role": "assistant", "content": content}
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        assert declined(CHAT_TEMPLATE, USER, silent, **fields) is SkipReason.BAD_REQUEST_SHAPE

    def test_a_list_as_the_last_content_is_not_exact(self):
        parts = [{"type": "text", "text": "a "}, {"type": "text", "text": ""}]
        prompt = ask(
            CHAT_TEMPLATE,
            {"role": "assistant", "content": parts},
            continue_final_message=True,
            add_generation_prompt=False,
        )
        assert prompt.inexact is InexactReason.UNFINISHED_MESSAGE


class TestExactness:
    def test_an_ordinary_conversation_is_exact(self):
        said = {"role": "assistant", "content": "x", "tool_calls": [CALL], "reasoning_content": "hm"}
        answer = {"role": "tool", "tool_call_id": "c1", "content": "r"}
        prompt = ask(
            CHAT_TEMPLATE,
            {"role": "system", "content": "s"},
            USER,
            said,
            answer,
            tools=[{"type": "function", "function": {"name": "f"}}],
            tool_choice="auto",
            temperature=0.1,
            max_tokens=3,
            stream=True,
            stop=["x"],
            nvext={"extra_fields": []},
        )
        assert prompt.inexact is None
        assert prompt.add_special_tokens is False

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("documents", [{}]),
            ("chat_template", "x"),
            ("truncate_prompt_tokens", 3),
            ("thinking", {}),
            ("foo", 1),
            ("add_special_tokens", True),
        ],
    )
    def test_fields_that_may_change_the_prompt_are_not(self, field, value):
        assert ask(CHAT_TEMPLATE, **{field: value}).inexact is InexactReason.UNKNOWN_FIELD

    def test_a_template_that_shows_the_date_is_not(self):
        assert ask("{{ strftime_now('%Y') }}").inexact is InexactReason.TEMPLATE_CLOCK

    def test_reasoning_for_a_template_that_knows_none_is_not(self):
        source = "{% for m in messages %}{{ m.content }}{% endfor %}"
        said = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
        assert ask(source, said).inexact is InexactReason.REASONING
        assert ask(source, USER).inexact is None

    def test_a_template_that_takes_parts_only_is_not(self):
        source = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
        assert ask(source).inexact is InexactReason.CONTENT_FORMAT

    def test_parts_for_a_template_that_takes_both_are_not(self):
        source = (
            "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
            "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
        )
        parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
        assert ask(source, parts).inexact is InexactReason.CONTENT_FORMAT
        assert ask(source, USER).inexact is None

    def test_an_order_of_roles_that_dynamo_rewrites_for_the_template_is_not(self):
        source = (
            "{% set ns = namespace(answered=false) %}{% for m in messages %}"
            "{% if m.role == 'system' and ns.answered %}{{ raise_exception('system first') }}{% endif %}"
            "{% if m.role == 'assistant' %}{% set ns.answered = true %}{% endif %}"
            "{{ m.content }}{% endfor %}"
        )
        system = {"role": "system", "content": "s"}
        assert ask(source, system, USER, system).inexact is InexactReason.MESSAGE_ORDER
        assert ask(source, system, USER).inexact is None

    def test_users_in_a_row_for_a_template_that_refuses_them_are_declined(self):
        source = (
            "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
            "{{ raise_exception('alternate') }}{% endif %}{{ m.content }}{% endfor %}"
        )
        assert declined(source, USER, USER) is SkipReason.RENDER_FAILED

    def test_a_function_call_is_not(self):
        said = {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}
        assert ask(CHAT_TEMPLATE, said).inexact is InexactReason.MESSAGE_FIELD

    def test_a_model_that_dynamo_has_code_of_its_own_for_is_not(self):
        own = profile(CHAT_TEMPLATE, dedicated_renderer=True)
        assert own.chat(chat_request()).inexact is InexactReason.DEDICATED_RENDERER


class TestCompletions:
    def ask(self, prompt: str, *fields: str) -> Prompt:
        return profile(SHOW).completion(
            CompletionRequest("m", frozenset({"model", "prompt", *fields}), prompt)
        )

    def test_the_prompt_is_taken_as_it_is_without_special_tokens(self):
        assert self.ask("<|im_start|>hi ", "max_tokens", "echo") == Prompt("<|im_start|>hi ", False)

    def test_nul_is_taken_out(self):
        assert self.ask("a\0b").text == "ab"

    def test_fields_that_may_change_the_prompt_are_not_exact(self):
        assert self.ask("a", "prompt_embeds").inexact is InexactReason.UNKNOWN_FIELD


def test_a_model_without_a_template_cannot_chat():
    with pytest.raises(Declined) as caught:
        profile().chat(chat_request())
    assert caught.value.reason is SkipReason.NO_CHAT_TEMPLATE
