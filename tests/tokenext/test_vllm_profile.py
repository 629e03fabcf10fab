"""Each expectation here was seen at a vLLM 0.32.0 render server, asked for its ids of the same request."""

import json
from datetime import UTC, datetime

import pytest

from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.chat_template import ChatTemplates
from tokenext.content_format import ContentFormat
from tokenext.declined import Declined, SkipReason
from tokenext.openai import Api, ChatRequest, CompletionRequest, parse, read_body
from tokenext.profiles import InexactReason, Prompt
from tokenext.vllm_messages import plain_texts, rebuilt
from tokenext.vllm_profile import VllmProfile

# Shows what a template is given: a line for each message with the fields it has, and one for the rest.
# Whole messages are not printed, since versions of transformers differ in them.
SHOW = """\
{%- for m in messages %}{{- {'role': m.role, 'content': m.content} | tojson }}
{%- for key in keys if m[key] is defined %}{{- '\\t' ~ key ~ '=' ~ m[key] | tojson }}{% endfor %}
{{- '\\n' }}{% endfor %}TOOLS={{ tools | tojson }}
{%- if documents is defined %} DOCUMENTS={{ documents | tojson }}{% endif %}
{%- if enable_thinking is defined %} enable_thinking={{ enable_thinking }}{% endif %}
{%- if reasoning_effort is defined %} reasoning_effort={{ reasoning_effort }}{% endif %}
{%- if foo is defined %} foo={{ foo | tojson }}{% endif %}
{{- ' ' }}bos={{ bos_token }} eos={{ eos_token }} pad={{ pad_token }} add={{ add_generation_prompt }}"""
KEYS = ["tool_calls", "reasoning", "reasoning_content", "tool_call_id", "name", "task", "refusal", "foo"]
SHOW = SHOW.replace("in keys", f"in {KEYS}")
PARTS = SHOW + "{% for m in messages %}{% for part in m['content'] %}{% endfor %}{% endfor %}"
KNOWS_DEVELOPERS = SHOW + "{# 'developer' #}"
USER = {"role": "user", "content": "hi"}


def profile(*sources: str, **options: object) -> VllmProfile:
    names = ("default", "tool_use")
    templates = ChatTemplates(dict(zip(names, sources, strict=False)), now=lambda: datetime.now(UTC))
    settings = {"special_tokens": {"eos_token": "<e>", "pad_token": "<p>"}, "template_kwargs": {}, **options}
    return VllmProfile(templates, **settings)


def chat_request(*messages: dict, **fields: object) -> ChatRequest:
    body = {"model": "m", "messages": messages or [USER], **fields}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return request


def ask(source: str, *messages: dict, **fields: object) -> Prompt:
    return profile(source).chat(chat_request(*messages, **fields))


def shown(*messages: dict, source: str = SHOW) -> list[str]:
    """Each message's role and content as JSON, then its other fields behind tabs."""
    return ask(source, *messages).text.split("\n")[:-1]


def contents(*messages: dict, source: str = SHOW) -> list[object]:
    return [json.loads(line.partition("\t")[0])["content"] for line in shown(*messages, source=source)]


def declined(source: str, *messages: dict, **fields: object) -> SkipReason:
    with pytest.raises(Declined) as caught:
        ask(source, *messages, **fields)
    return caught.value.reason


def variables(**fields: object) -> str:
    return ask(SHOW, **fields).text.split("\n")[-1]


def said(**fields: object) -> dict:
    return {"role": "assistant", "content": "c", **fields}


def text_parts(*texts: str, **fields: object) -> list[dict]:
    return [{"type": "text", "text": text, **fields} for text in texts]


class TestContentAsText:
    """A template that does not loop over content takes text."""

    def test_parts_are_joined_by_line_ends_without_the_empty_ones(self):
        assert contents({"role": "user", "content": text_parts("a", "", "b")}) == ["a\nb"]
        assert contents({"role": "tool", "tool_call_id": "x", "content": text_parts("a", "", "b")}) == [
            "a\nb"
        ]

    def test_nothing_is_an_empty_text(self):
        assert contents({"role": "user", "content": []}) == [""]
        assert contents(USER, {"role": "assistant"}) == ["hi", ""]
        assert contents(USER, said(content=None)) == ["hi", ""]
        assert contents({"role": "user"}) == [""]
        assert contents(USER, {"role": "function", "name": "f", "content": None})[1] == ""

    @pytest.mark.parametrize("role", ["user", "system", "developer", "tool"])
    def test_null_is_for_assistants_and_functions_only(self, role):
        assert declined(SHOW, {"role": role, "content": None}, USER) is SkipReason.BAD_REQUEST_SHAPE

    def test_nul_stays(self):
        assert contents({"role": "user", "content": "a\0b"}) == ["a\0b"]


class TestContentAsParts:
    """A template that loops over content takes parts."""

    def test_text_becomes_a_part_and_nothing_an_empty_list(self):
        assert contents(USER, {"role": "assistant"}, source=PARTS) == [text_parts("hi"), []]

    def test_parts_stay_with_the_empty_ones_and_their_cache_control(self):
        parts = text_parts("a", "", cache_control={"type": "ephemeral"})
        assert contents({"role": "user", "content": parts}, source=PARTS) == [parts]

    def test_a_tools_parts_are_joined_all_the_same_with_the_empty_ones(self):
        answer = {"role": "tool", "tool_call_id": "x", "content": text_parts("a", "", "b")}
        assert contents(answer, source=PARTS) == ["a\n\nb"]
        assert contents({**answer, "content": []}, source=PARTS) == [""]

    def test_other_keys_of_parts_make_it_inexact(self):
        odd = {"role": "user", "content": text_parts("a", x=1)}
        assert ask(PARTS, odd).inexact is InexactReason.CONTENT_FORMAT
        assert ask(SHOW, odd).inexact is None


class TestMessages:
    def test_only_known_fields_are_kept(self):
        assert shown({**USER, "name": "n", "foo": 1, "tool_call_id": "x", "reasoning": "r"}) == [
            '{"role": "user", "content": "hi"}\tname="n"'
        ]
        assert shown(USER, said(refusal="no", foo=1))[1] == '{"role": "assistant", "content": "c"}'
        assert shown({"role": "tool", "content": "r", "tool_call_id": "c", "name": "f"}) == [
            '{"role": "tool", "content": "r"}\ttool_call_id="c"\tname="f"'
        ]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"reasoning": "r"}, "r"),
            ({"reasoning_content": "r"}, "r"),
            ({"reasoning": "r", "reasoning_content": "s"}, "r"),
            ({"reasoning": "", "reasoning_content": "s"}, ""),
            ({"reasoning": None, "reasoning_content": "s"}, "s"),
        ],
    )
    def test_reasoning_goes_by_both_names_and_the_new_one_wins(self, fields, expected):
        assert shown(USER, said(**fields))[1].endswith(
            f'reasoning="{expected}"\treasoning_content="{expected}"'
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("x-anthropic-billing-header: cch=1\nrest\nmore", "rest\nmore"),
            ("x-anthropic-billing-header: cch=1", ""),
        ],
    )
    def test_claude_codes_billing_header_is_taken_out_of_system_texts(self, text, expected):
        assert contents({"role": "system", "content": text}, USER)[0] == expected
        assert contents({"role": "user", "content": text})[0] == text

    def test_a_system_part_that_is_only_a_billing_header_goes(self):
        system = {"role": "system", "content": text_parts("x-anthropic-billing-header: c", "b")}
        assert contents(system, USER, source=PARTS)[0] == text_parts("b")

    @pytest.mark.parametrize(
        "message", [{**USER, "task": "t"}, {"role": "tool", "content": "r", "tool_call_id": None}]
    )
    def test_fields_that_not_every_template_or_transformers_treats_alike_are_inexact(self, message):
        assert ask(SHOW, message).inexact is InexactReason.MESSAGE_FIELD


@pytest.mark.parametrize("role", ["user", "assistant", "tool", "function", "system"])
@pytest.mark.parametrize("content", ["", "a", "x-anthropic-billing-header: a\nb", "\0\n"])
def test_many_plain_messages_at_once_are_what_each_of_them_is(role, content):
    message = {"role": role, "content": content}
    assert plain_texts([message, USER]) == [rebuilt(each, ContentFormat.STRING) for each in (message, USER)]


class TestDevelopers:
    DEVELOPER = {"role": "developer", "content": "d", "name": "n"}  # noqa: RUF012

    def test_they_become_system_where_the_template_does_not_know_them(self):
        assert shown(self.DEVELOPER, USER)[0] == '{"role": "system", "content": "d"}\tname="n"'

    def test_then_all_system_messages_are_one_the_first(self):
        system = {"role": "system", "content": text_parts("a", "b")}
        empty = {"role": "developer", "content": ""}
        expected = ['{"role": "system", "content": "a\\nb\\n\\nd"}', '{"role": "user", "content": "hi"}']
        assert shown(system, USER, self.DEVELOPER, empty) == expected
        as_parts = shown(system, USER, self.DEVELOPER, empty, source=PARTS)
        assert as_parts[0] == expected[0]

    def test_without_developers_late_system_messages_stay(self):
        assert shown(USER, {"role": "system", "content": "s"})[1] == '{"role": "system", "content": "s"}'

    def test_they_stay_where_the_template_has_the_word(self):
        assert shown(self.DEVELOPER, USER, source=KNOWS_DEVELOPERS)[0].startswith('{"role": "developer"')


class TestToolCalls:
    def call(self, arguments: str = "{}", **fields: object) -> dict:
        return {"function": {"arguments": arguments, "name": "f"}, "type": "function", "id": "c", **fields}

    def arguments(self, given: str) -> str:
        text = shown(USER, said(tool_calls=[self.call(given)]))[1]
        return text.partition('"arguments": ')[2].partition(', "name": "f"}')[0]

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ('{"b":1, "a": "\\u00e9"}', '{"b": 1, "a": "é"}'),
            ('{"b":1,"a":2,"b":3}', '{"b": 3, "a": 2}'),
            ('{"n":123456789012345678901234567890}', '{"n": 123456789012345678901234567890}'),
            ('{"n":-0, "x":1e400, "y":NaN}', '{"n": 0, "x": Infinity, "y": NaN}'),
            ("", "{}"),
            ("  ", "{}"),
            ("no json", "{}"),
            ("[1]", "{}"),
            ("null", "{}"),
        ],
    )
    def test_arguments_are_parsed_and_what_is_no_object_is_an_empty_one(self, given, expected):
        assert self.arguments(given) == expected

    def test_keys_come_in_the_order_of_the_types_and_the_clients_others_behind(self):
        call = {**self.call(), "index": 0, "x": 1}
        call["function"] = {"z": 1, **call["function"]}
        assert shown(USER, said(tool_calls=[call]))[1] == (
            '{"role": "assistant", "content": "c"}\t'
            'tool_calls=[{"id": "c", "function": {"arguments": {}, "name": "f", '
            '"z": 1}, "type": "function", "index": 0, "x": 1}]'
        )

    def test_an_empty_list_goes(self):
        assert shown(USER, said(tool_calls=[]))[1] == '{"role": "assistant", "content": "c"}'

    def test_a_call_without_type_is_refused(self):
        call = self.call()
        del call["type"]
        assert declined(SHOW, USER, said(tool_calls=[call])) is SkipReason.BAD_REQUEST_SHAPE


class TestTools:
    def shown(self, *tools: dict, **fields: object) -> list[dict]:
        return json.loads(
            variables(tools=list(tools), **fields).partition(" DOCUMENTS")[0].removeprefix("TOOLS=")
        )

    def test_keys_come_in_the_models_order_with_null_defaults_and_no_others(self):
        given = {"x": 1, "function": {"strict": False, "parameters": {"b": 1, "a": 2}, "name": "f", "y": 1}}
        (tool,) = self.shown({**given, "type": "function"})
        assert json.dumps(tool) == json.dumps(
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": None,
                    "parameters": {"b": 1, "a": 2},
                    "strict": False,
                },
            }
        )
        (bare,) = self.shown({"type": "function", "function": {"name": "f", "strict": None}})
        assert bare["function"] == {"name": "f", "description": None, "parameters": None}

    @pytest.mark.parametrize("given", [{}, {"defer_loading": None}])
    def test_defer_loading_is_left_out_unless_it_is_given(self, given):
        (tool,) = self.shown({"type": "function", "function": {"name": "f"}, **given})
        assert list(tool) == ["type", "function"]

    def test_defer_loading_goes_from_the_tool_to_its_function(self):
        (tool,) = self.shown({"type": "function", "function": {"name": "f"}, "defer_loading": True})
        assert (tool["defer_loading"], tool["function"]["defer_loading"]) == (True, True)
        (inner,) = self.shown({"type": "function", "function": {"name": "f", "defer_loading": False}})
        assert "defer_loading" not in inner
        assert inner["function"]["defer_loading"] is False

    def test_tools_stay_whatever_the_choice(self):
        tool = {"type": "function", "function": {"name": "f"}}
        for choice in ("none", "auto", "required", None):
            assert len(self.shown(tool, tool_choice=choice)) == 1

    def test_numbers_of_a_schema_stay_as_python_reads_them(self):
        schema = {"n": 10**30, "z": 1e22}
        (tool,) = self.shown({"type": "function", "function": {"name": "f", "parameters": schema}})
        assert tool["function"]["parameters"] == schema

    def test_a_template_of_its_own_serves_requests_with_tools(self):
        both = profile("plain", "with tools")
        tool = {"type": "function", "function": {"name": "f"}}
        assert both.chat(chat_request(tools=[tool])).text == "with tools"
        assert both.chat(chat_request(chat_template_kwargs={"tools": [tool]})).text == "with tools"
        assert both.chat(chat_request()).text == "plain"


class TestTemplateArguments:
    @pytest.mark.parametrize("effort", ["minimal", "low", "high", "max"])
    def test_an_effort_turns_thinking_on(self, effort):
        assert f" enable_thinking=True reasoning_effort={effort} " in variables(reasoning_effort=effort)

    def test_none_turns_it_off(self):
        assert " enable_thinking=False reasoning_effort=none " in variables(reasoning_effort="none")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({"enable_thinking": True}, " enable_thinking=True reasoning_effort=none "),
            ({"enable_thinking": None}, "null reasoning_effort=none "),
            ({"enable_thinking": "auto"}, "null reasoning_effort=none "),
            ({"reasoning_effort": "low"}, " enable_thinking=False reasoning_effort=none "),
        ],
    )
    def test_what_the_arguments_say_of_thinking_wins_even_if_it_is_nothing(self, given, expected):
        assert expected in variables(reasoning_effort="none", chat_template_kwargs=given)

    def test_an_effort_among_the_arguments_turns_nothing_on(self):
        assert "null reasoning_effort=low " in variables(chat_template_kwargs={"reasoning_effort": "low"})

    def test_null_and_auto_are_as_good_as_nothing(self):
        own = profile(SHOW, template_kwargs={"foo": 1})
        for value in (None, "auto"):
            assert "foo=1" in own.chat(chat_request(chat_template_kwargs={"foo": value})).text

    def test_the_requests_arguments_win_over_the_servers(self):
        own = profile(SHOW, template_kwargs={"foo": 1})
        assert "foo=1" in own.chat(chat_request()).text
        assert "foo=[2]" in own.chat(chat_request(chat_template_kwargs={"foo": [2]})).text

    def test_special_tokens_are_those_that_the_model_has_and_can_be_overridden(self):
        assert variables().endswith("bos= eos=<e> pad=<p> add=True")
        kwargs = {"bos_token": "X", "eos_token": "", "pad_token": None}
        assert variables(chat_template_kwargs=kwargs).endswith("bos=X eos= pad=<p> add=True")

    def test_the_requests_own_fields_cannot_be_replaced_but_tools_and_documents_can_be_given(self):
        kwargs = {"add_generation_prompt": False, "tools": [{"a": 1}], "documents": [{"b": "c"}]}
        text = variables(chat_template_kwargs=kwargs)
        assert text.startswith('TOOLS=[{"a": 1}] DOCUMENTS=[{"b": "c"}]')
        assert text.endswith("add=True")
        documents = variables(chat_template_kwargs=kwargs, documents=[{"d": "e"}])
        assert 'DOCUMENTS=[{"d": "e"}]' in documents

    def test_documents_are_always_defined(self):
        assert " DOCUMENTS=null" in variables()
        assert " DOCUMENTS=[]" in variables(documents=[])

    def test_only_what_the_template_looks_up_reaches_it(self):
        source = "{% for name in ['x'] %}{% endfor %}{{ x is defined }}{{ range is callable }}"
        assert (
            profile(source).chat(chat_request(chat_template_kwargs={"range": 1, "x": 2})).text == "TrueTrue"
        )

    def test_chat_template_args_are_nothing_to_it(self):
        assert "foo" not in variables(chat_template_args={"foo": 1})

    @pytest.mark.parametrize(
        "kwargs",
        [{"messages": []}, {"conversation": []}, {"documents": "x"}, {"documents": [1]}, {"tools": "x"}],
    )
    def test_some_names_are_refused(self, kwargs):
        assert declined(SHOW, chat_template_kwargs=kwargs) is SkipReason.BAD_REQUEST_SHAPE

    @pytest.mark.parametrize(
        "name", ["tokenize", "sanitize_control_tokens", "truncation", "padding", "max_length"]
    )
    def test_parameters_of_transformers_are_not_exact(self, name):
        assert ask(SHOW, chat_template_kwargs={name: True}).inexact is InexactReason.TEMPLATE_KWARGS


class TestPrompts:
    def test_a_chat_gets_special_tokens_only_if_it_asks_for_them(self):
        assert ask(CHAT_TEMPLATE).add_special_tokens is False
        assert ask(CHAT_TEMPLATE, add_special_tokens=True).add_special_tokens is True

    def test_an_unfinished_message_ends_the_prompt(self):
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        assert ask(CHAT_TEMPLATE, USER, said(content="so "), **fields).text.endswith("assistant\nso ")
        assert (
            declined(CHAT_TEMPLATE, USER, said(), continue_final_message=True) is SkipReason.BAD_REQUEST_SHAPE
        )

    def test_an_unfinished_message_of_parts_ends_with_the_last_of_them(self):
        parts = "{% for p in m.content %}[{{ p.text }}]{% endfor %}"
        source = "{% for m in messages %}<{{ m.role }}>" + parts + "{% endfor %}"
        unfinished = said(content=text_parts("a", "b "))
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        assert ask(source, USER, unfinished, **fields).text == "<user>[hi]<assistant>[a][b "

    def test_a_text_that_the_template_changes_cannot_be_continued(self):
        source = "{% for m in messages %}{{ m.content | replace('so', 'SO') }}{% endfor %}"
        fields = {"continue_final_message": True, "add_generation_prompt": False}
        assert declined(source, said(content="so"), **fields) is SkipReason.RENDER_FAILED

    def test_truncation_goes_with_the_prompt(self):
        prompt = ask(CHAT_TEMPLATE, truncate_prompt_tokens=3, truncation_side="right")
        assert prompt.truncation is not None
        assert prompt.inexact is None

    def test_a_completion_is_its_prompt_with_special_tokens(self):
        completed = profile().completion(CompletionRequest("m", frozenset({"prompt", "echo"}), "a\0b"))
        assert completed == Prompt("a\0b", add_special_tokens=True)

    def test_an_empty_completion_is_refused(self):
        with pytest.raises(Declined) as caught:
            profile().completion(CompletionRequest("m", frozenset({"prompt"}), ""))
        assert caught.value.reason is SkipReason.EMPTY_PROMPT

    @pytest.mark.parametrize("field", ["suffix", "prompt_embeds", "foo", "mm_processor_kwargs"])
    def test_fields_that_may_change_a_completion_are_not_exact(self, field):
        request = CompletionRequest("m", frozenset({"prompt", field}), "a")
        assert profile().completion(request).inexact is InexactReason.UNKNOWN_FIELD


class TestExactness:
    def test_an_ordinary_conversation_is_exact(self):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        prompt = ask(
            CHAT_TEMPLATE,
            {"role": "system", "content": "s"},
            USER,
            said(tool_calls=[call], reasoning_content="hm"),
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
            tools=[{"type": "function", "function": {"name": "f"}}],
            temperature=0.1,
            max_tokens=3,
            stream=True,
            return_token_ids=True,
            kv_transfer_params={},
            cache_salt="x",
            structured_outputs={},
            nvext={},
        )
        assert prompt.inexact is None

    @pytest.mark.parametrize(
        "fields", [{"chat_template": "x"}, {"chat_template_kwargs": {"chat_template": "x"}}]
    )
    def test_a_template_of_the_requests_own_is_not(self, fields):
        assert ask(CHAT_TEMPLATE, **fields).inexact is InexactReason.REQUEST_TEMPLATE

    @pytest.mark.parametrize("field", ["foo", "mm_processor_kwargs", "media_io_kwargs", "thinking"])
    def test_fields_that_may_change_the_prompt_are_not(self, field):
        assert ask(CHAT_TEMPLATE, **{field: {}}).inexact is InexactReason.UNKNOWN_FIELD

    def test_a_template_that_shows_the_date_is_not(self):
        assert ask("{{ strftime_now('%Y') }}").inexact is InexactReason.TEMPLATE_CLOCK

    def test_a_model_that_vllm_has_code_of_its_own_for_is_not(self):
        own = profile(CHAT_TEMPLATE, dedicated_renderer=True)
        assert own.chat(chat_request()).inexact is InexactReason.DEDICATED_RENDERER

    @pytest.mark.parametrize(
        "source",
        ["{{ messages | tojson }}", "{% for m in messages %}{{ m.thinking }}{% endfor %}"],
    )
    def test_reasoning_is_not_where_the_template_sees_what_versions_of_transformers_call_it(self, source):
        assert ask(source, USER, said(reasoning="r"), USER).inexact is InexactReason.REASONING
        assert ask(source, USER, said(), USER).inexact is None

    def test_developers_are_not_where_the_template_sees_their_missing_tools(self):
        source = "{% for m in messages if m.role == 'developer' %}{{ m.tools is defined }}{% endfor %}"
        assert ask(source, {"role": "developer", "content": "d"}).inexact is InexactReason.MESSAGE_FIELD


def test_a_model_without_a_template_cannot_chat():
    with pytest.raises(Declined) as caught:
        profile().chat(chat_request())
    assert caught.value.reason is SkipReason.NO_CHAT_TEMPLATE
