import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from extproc.token_metadata import TokenIds
from tests.tokenext.test_json_object import json_values
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject
from tokenext.openai import Api, ChatRequest, CompletionRequest, Side, Truncation, parse, read_body

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [USER], **fields}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return request


def reason(api: Api, body: bytes) -> SkipReason:
    with pytest.raises(Declined) as caught:
        parse(api, read_body(body))
    return caught.value.reason


def chat_reason(**fields: object) -> SkipReason:
    return reason(Api.CHAT, json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def test_a_chat_has_the_fields_that_decide_its_prompt():
    request = chat(
        tools=[TOOL],
        tool_choice="auto",
        chat_template_kwargs={"enable_thinking": False},
        reasoning_effort="low",
        add_generation_prompt=False,
        continue_final_message=True,
        temperature=0.5,
    )
    assert request.messages == (USER,)
    assert request.tools == (TOOL,)
    assert request.tool_choice == "auto"
    assert request.template_kwargs == {"enable_thinking": False}
    assert request.reasoning_effort == "low"
    assert (request.add_generation_prompt, request.continue_final_message) == (False, True)
    assert "temperature" in request.fields


def test_null_means_absent():
    request = chat(
        tools=None, tool_choice=None, chat_template_kwargs=None, add_generation_prompt=None, nvext=None
    )
    assert request.tools is None
    assert request.template_kwargs == {}
    assert request.add_generation_prompt is True
    assert request.fields == {"model", "messages"}


def test_chat_template_args_stand_beside_the_kwargs():
    request = chat(chat_template_args={"a": 1}, chat_template_kwargs={"b": 2})
    assert (request.template_args, request.template_kwargs) == ({"a": 1}, {"b": 2})
    assert chat().template_args is None


def test_fields_that_only_some_engines_know_are_read():
    request = chat(
        documents=[{"title": "t"}],
        add_special_tokens=True,
        truncate_prompt_tokens=5,
        truncation_side="right",
    )
    assert request.documents == ({"title": "t"},)
    assert request.add_special_tokens is True
    assert request.truncation == Truncation(5, Side.RIGHT)
    assert chat(truncate_prompt_tokens=-1).truncation == Truncation(-1)
    assert chat(truncation_side="left").truncation is None


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_integers_beyond_64_bits_are_kept_and_told_of(number):
    request = chat(chat_template_kwargs={"n": [number, 1.5]})
    assert request.template_kwargs == {"n": [number, 1.5]}
    assert request.odd_numbers


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), "12345678901234567890", "-0", 1.5, -0.0, 0, -10])
def test_other_numbers_are_nothing_odd(number):
    assert not chat(chat_template_kwargs={"n": number}).odd_numbers


def test_a_completion_has_one_prompt():
    request = parse(Api.COMPLETION, read_body(b'{"model":"m","prompt":"hi","max_tokens":1}'))
    assert request == CompletionRequest("m", frozenset({"model", "prompt", "max_tokens"}), "hi")


def prompt_of(prompt: object) -> str | TokenIds:
    request = parse(Api.COMPLETION, read_body(json.dumps({"model": "m", "prompt": prompt}).encode()))
    assert isinstance(request, CompletionRequest)
    return request.prompt


def test_a_list_of_one_prompt_is_that_prompt():
    assert prompt_of(["a"]) == "a"
    assert prompt_of([[1, 2]]) == TokenIds.pack([1, 2])


def test_a_prompt_of_ids_is_taken_as_ids():
    assert prompt_of([1, 2**32 - 1]) == TokenIds.pack([1, 2**32 - 1])


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], ["a", [1]]])
def test_several_prompts_have_no_one_list_of_ids(prompt):
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    assert reason(Api.COMPLETION, body) is SkipReason.PROMPT_LIST


@pytest.mark.parametrize("prompt", [None, 3, {}, [], [[]], [1, "a"], [1.0], [True], [-1], [2**32], [None]])
def test_what_is_no_prompt_is_declined(prompt):
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    assert reason(Api.COMPLETION, body) is SkipReason.BAD_REQUEST_SHAPE


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "refusal", "refusal": "no"},
        {"text": "no type"},
        {"type": "text", "text": "a", "image_url": {"url": "data:,"}},
        {"type": "text", "text": "a", "uuid": "u"},
    ],
)
def test_parts_that_are_no_text_are_told_as_multimodal(part):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]
    assert chat(messages=messages).unusual is SkipReason.MULTIMODAL


@pytest.mark.parametrize(
    "message",
    [
        {"role": "bot", "content": "hi"},
        {**USER, "content": 3},
        {**USER, "content": ["hi"]},
        {**USER, "content": [{"type": "text", "text": None}]},
        {**USER, "name": 3},
        {**USER, "reasoning_content": ["a"]},
        {**USER, "tool_calls": {}},
        {**USER, "tool_calls": [{**CALL, "id": None}]},
        {**USER, "tool_calls": [{**CALL, "type": "custom"}]},
        {**USER, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]},
    ],
)
def test_a_message_of_another_shape_than_openais_is_told_wherever_it_stands(message):
    assert chat(messages=[USER, message, USER]).unusual is SkipReason.BAD_REQUEST_SHAPE
    assert chat(messages=[USER, message, USER]).messages[1] == message


def test_messages_of_openais_shape_are_not_unusual():
    assert chat(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]).unusual is None


def test_half_a_surrogate_pair_that_got_this_far_is_told():
    body = JsonObject(b"", {"model": Raw(b'"m"'), "messages": Raw(b'[{"role":"user","content":"\\ud800"}]')})
    request = parse(Api.CHAT, body)
    assert isinstance(request, ChatRequest)
    assert request.unusual is SkipReason.INVALID_JSON
    assert request.messages == ({"role": "user", "content": "\ud800"},)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": 3},
        {"model": None},
        {"messages": []},
        {"messages": {}},
        {"messages": None},
        {"messages": ["hi"]},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": ["user"], "content": "hi"}]},
        {"tools": []},
        {"tools": {}},
        {"tools": [{"type": "custom"}]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": None}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]},
        {"chat_template_kwargs": []},
        {"reasoning_effort": 3},
        {"add_generation_prompt": "yes"},
        {"continue_final_message": 1},
        {"nvext": [1]},
        {"kv_transfer_params": "x"},
        {"documents": {}},
        {"documents": ["x"]},
        {"add_special_tokens": "yes"},
        {"truncate_prompt_tokens": 0},
        {"truncate_prompt_tokens": -2},
        {"truncate_prompt_tokens": 1.0},
        {"truncate_prompt_tokens": True},
        {"truncate_prompt_tokens": 3, "truncation_side": "middle"},
        {"chat_template_args": []},
    ],
)
def test_a_body_of_another_shape_is_declined(fields):
    assert chat_reason(**fields) is SkipReason.BAD_REQUEST_SHAPE


@pytest.mark.parametrize(
    "messages",
    [
        b'[{"role":"user","content":"\\ud800"}]',
        b'[{"role":"user","content":"\xff"}]',
        b'[{"role":"user","content":"a","x":' + b"[" * 5000 + b"]" * 5000 + b"}]",
    ],
)
def test_text_that_is_no_unicode_and_deep_nesting_are_declined(messages):
    body = b'{"model":"m","messages":' + messages + b"}"
    assert reason(Api.CHAT, body) in {SkipReason.INVALID_JSON, SkipReason.BAD_REQUEST_SHAPE}


def test_nul_and_special_tokens_in_text_are_just_text():
    assert (
        chat(messages=[{"role": "user", "content": "\0<|im_end|>"}]).messages[0]["content"] == "\0<|im_end|>"
    )


odd_fields = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "tools",
        "tool_choice",
        "nvext",
        "chat_template_kwargs",
        "reasoning_effort",
    ]
)
odd_messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "tool", "x"]) | json_values,
            "content": json_values,
            "tool_calls": json_values,
            "name": json_values,
        },
    ),
    max_size=3,
)


@settings(max_examples=300)
@given(st.sampled_from(list(Api)), st.dictionaries(odd_fields, json_values | odd_messages))
def test_any_json_object_is_parsed_or_declined(api, value):
    try:
        request = parse(api, read_body(json.dumps(value).encode()))
    except Declined:
        return
    assert request.model == value["model"]


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_declined(body):
    with pytest.raises(Declined):
        parse(Api.CHAT, read_body(b'{"model":' + body))
