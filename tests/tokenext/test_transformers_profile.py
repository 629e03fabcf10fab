"""What transformers 5.23 makes of a request; the differences to it are the engines' own rules."""

import json
from datetime import UTC, datetime

import pytest

from extproc.token_metadata import TokenIds
from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined, SkipReason
from tokenext.openai import Api, ChatRequest, CompletionRequest, parse, read_body
from tokenext.profiles import InexactReason, Prompt
from tokenext.sglang_profile import SglangProfile
from tokenext.transformers_profile import TransformersProfile

SHOW = """\
{{ messages | tojson }}
{{ tools | tojson }}
{% if documents is defined %}documents={{ documents | tojson }};{% endif %}
{%- if reasoning_effort is defined %}effort;{% endif %}{% if foo is defined %}foo={{ foo }};{% endif %}
{{- '' }}bos={{ bos_token }};eos={{ eos_token }};add={{ add_generation_prompt }}"""
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def profile(source: str = SHOW, **options: object) -> TransformersProfile:
    templates = ChatTemplates({"default": source}, now=lambda: datetime.now(UTC))
    settings = {"special_tokens": {"eos_token": "<e>"}, "template_kwargs": {}, **options}
    return TransformersProfile(templates, **settings)


def chat_request(*messages: dict, **fields: object) -> ChatRequest:
    body = {"model": "m", "messages": messages or [USER], **fields}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return request


def ask(*messages: dict, source: str = SHOW, **fields: object) -> Prompt:
    return profile(source).chat(chat_request(*messages, **fields))


def declined(*messages: dict, source: str = SHOW, **fields: object) -> SkipReason:
    with pytest.raises(Declined) as caught:
        ask(*messages, source=source, **fields)
    return caught.value.reason


def test_messages_go_to_the_template_as_they_are_but_for_nulls():
    given = [
        {"content": [{"type": "text", "text": "a", "x": 1}], "role": "user", "foo": 1, "name": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "developer", "content": "d"},
    ]
    assert ask(*given).text.splitlines()[0] == json.dumps(
        [
            {"content": [{"type": "text", "text": "a", "x": 1}], "role": "user", "foo": 1},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "developer", "content": "d"},
        ]
    )


@pytest.mark.parametrize(
    "given",
    [{"reasoning": "r"}, {"reasoning_content": "r"}, {"thinking": "r"}, {"reasoning": "s", "thinking": "r"}],
)
def test_reasoning_is_there_by_all_its_names_but_the_newest(given):
    message = {"role": "assistant", "content": "c", **given}
    assert json.loads(ask(message).text.splitlines()[0]) == [
        {"thinking": "r", **message, "reasoning_content": "r"}
    ]


def test_tools_go_as_they_are_also_when_they_may_not_be_called():
    tool = {"x": 1, "type": "function", "function": {"parameters": {"b": 1}, "name": "f", "strict": None}}
    assert ask(tools=[tool], tool_choice="none").text.splitlines()[1] == json.dumps([tool])


def test_arguments_of_the_template_override_special_tokens_and_yield_to_nothing():
    text = ask(chat_template_kwargs={"foo": 1, "eos_token": "X"}, documents=[{"a": "b"}]).text
    assert text.endswith('documents=[{"a": "b"}];foo=1;bos=;eos=X;add=True')


@pytest.mark.parametrize(
    "name", ["tools", "documents", "messages", "add_generation_prompt", "tokenize", "padding"]
)
def test_a_parameter_given_twice_is_refused(name):
    assert declined(chat_template_kwargs={name: None}) is SkipReason.BAD_REQUEST_SHAPE


class TestUnfinishedMessages:
    SAID = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "so "})

    def test_to_go_on_is_not_to_begin_anew(self):
        assert ask(*self.SAID, source=CHAT_TEMPLATE, continue_final_message=True).text.endswith(
            "assistant\nso "
        )

    def test_both_at_once_are_refused(self):
        both = {"continue_final_message": True, "add_generation_prompt": True}
        assert declined(*self.SAID, source=CHAT_TEMPLATE, **both) is SkipReason.BAD_REQUEST_SHAPE

    @pytest.mark.parametrize("content", [None, [], [{"type": "text", "text": "x"}]])
    def test_a_content_that_the_template_does_not_print_as_text_is_refused(self, content):
        source = "{% for m in messages %}{{ m.content | length }}{% endfor %}"
        said = {"role": "assistant", "content": content}
        assert declined(said, source=source, continue_final_message=True) is not None

    def test_a_template_that_never_speaks_of_content_is_refused(self):
        source = "{{ messages | tojson }}"
        assert declined(USER, source=source, continue_final_message=True) is SkipReason.BAD_REQUEST_SHAPE


class TestExactness:
    def test_ordinary_requests_are_exact(self):
        fields = {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "temperature": 1,
            "stream": True,
        }
        assert ask(**fields).inexact is None

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"reasoning_effort": "low"}, InexactReason.UNKNOWN_FIELD),
            ({"chat_template_args": {}}, InexactReason.UNKNOWN_FIELD),
            ({"add_special_tokens": True}, InexactReason.UNKNOWN_FIELD),
            ({"truncate_prompt_tokens": 1}, InexactReason.UNKNOWN_FIELD),
            ({"foo": 1}, InexactReason.UNKNOWN_FIELD),
            ({"chat_template": "x"}, InexactReason.REQUEST_TEMPLATE),
        ],
    )
    def test_what_it_knows_nothing_of_is_not(self, fields, reason):
        assert ask(**fields).inexact is reason

    def test_the_date_is_not(self):
        assert ask(source="{{ strftime_now('%Y') }}").inexact is InexactReason.TEMPLATE_CLOCK

    def test_a_model_that_engines_render_themselves_is_not(self):
        own = profile(dedicated_renderer=True)
        assert own.chat(chat_request()).inexact is InexactReason.DEDICATED_RENDERER


class TestCompletions:
    def test_a_text_is_taken_as_it_is_with_special_tokens(self):
        request = CompletionRequest("m", frozenset({"prompt", "max_tokens"}), "a\0b")
        assert profile().completion(request) == Prompt("a\0b", add_special_tokens=True)
        bare = CompletionRequest("m", frozenset({"prompt"}), "a", add_special_tokens=False)
        assert profile().completion(bare).add_special_tokens is False

    def test_ids_are_taken_as_they_are(self):
        ids = TokenIds.pack([1, 2])
        assert profile().completion(CompletionRequest("m", frozenset({"prompt"}), ids)).ids == ids

    def test_other_fields_are_not_exact(self):
        request = CompletionRequest("m", frozenset({"prompt", "suffix"}), "a")
        assert profile().completion(request).inexact is InexactReason.UNKNOWN_FIELD


class TestSglang:
    """Only what SGLang is known to tokenize alike."""

    def ask(self, *messages: dict, source: str = CHAT_TEMPLATE, **fields: object) -> InexactReason | None:
        templates = ChatTemplates({"default": source}, now=lambda: datetime.now(UTC))
        sglang = SglangProfile(templates, special_tokens={}, template_kwargs={})
        assert sglang.name == "sglang"
        return sglang.chat(chat_request(*messages, **fields)).inexact

    def test_a_plain_conversation_is_exact(self):
        said = {"role": "assistant", "content": "yes"}
        assert (
            self.ask({"role": "system", "content": "s"}, USER, said, USER, temperature=0.5, top_k=3) is None
        )

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"chat_template_kwargs": {"a": 1}},
            {"reasoning_effort": "low"},
            {"continue_final_message": True, "add_generation_prompt": False},
            {"add_generation_prompt": False},
            {"response_format": {"type": "json_object"}},
            {"foo": 1},
        ],
    )
    def test_tools_reasoning_and_template_arguments_are_not(self, fields):
        assert self.ask(USER, {"role": "user", "content": "so"}, **fields) is not None

    @pytest.mark.parametrize(
        "last",
        [
            {"role": "assistant", "content": "so"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "user", "content": "a", "name": "n"},
            {"role": "tool", "content": "a", "tool_call_id": "x"},
            {"role": "developer", "content": "a"},
        ],
    )
    def test_other_messages_are_not(self, last):
        assert self.ask(USER, last) is InexactReason.ENGINE_RULE

    def test_a_template_that_asks_for_an_effort_is_not(self):
        source = CHAT_TEMPLATE + "{% if reasoning_effort is defined %}x{% endif %}"
        assert self.ask(USER, source=source) is InexactReason.ENGINE_RULE

    def test_completions_are_not(self):
        templates = ChatTemplates({}, now=lambda: datetime.now(UTC))
        sglang = SglangProfile(templates, special_tokens={}, template_kwargs={})
        request = CompletionRequest("m", frozenset({"prompt"}), "a")
        assert sglang.completion(request).inexact is InexactReason.ENGINE_RULE
