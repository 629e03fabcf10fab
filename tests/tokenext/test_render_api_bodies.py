"""What the render API makes of a body: its fields, its prompts, its sampling parameters."""

import json

import pytest

from tokenext.render_api.answers import generate_request, tokenized
from tokenext.render_api.bodies import CHAT, COMPLETION, read_rendering
from tokenext.render_api.errors import ApiError
from tokenext.render_api.fields import read_fields
from tokenext.render_api.tokenize_bodies import detokenize_ids, read_tokenizing

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: object):
    return read_rendering(CHAT, json.dumps({"messages": MESSAGES, **fields}).encode())


def completion(prompt: object = "hi", **fields: object):
    return read_rendering(COMPLETION, json.dumps({"prompt": prompt, **fields}).encode())


def prompts_of(asked, max_length=100):
    asked.check(max_length)
    return asked.prompts("m", max_length)


def params(asked, room=50):
    return asked.sampling.params(chat=asked.chat, room=room)


def refused(read, *arguments, **fields):
    with pytest.raises(ApiError) as caught:
        read(*arguments, **fields)
    refusal = caught.value.refusal
    return refusal.status, refusal.type, refusal.param


def test_a_body_that_lacks_nothing_is_handed_on_byte_for_byte():
    text = b'{ "model":"m","messages" : [{"role":"user","content":"h\\u0069"}] , "temperature":0.50}'
    assert [each.text for each in read_rendering(CHAT, text).prompts("m", None)] == [text]


def test_wide_integers_of_tools_reach_the_template_as_they_were_sent():
    number = 10**30
    tool = {"function": {"name": "f", "parameters": {"maximum": number}}}
    (prompt,) = prompts_of(chat(tools=[tool]))
    assert json.loads(prompt.text)["tools"] == [{"type": "function", **tool}]
    assert str(number).encode() in prompt.text


def test_a_byte_order_mark_is_passed_over_and_the_last_of_two_names_counts():
    body = b'\xef\xbb\xbf{"model":"a","model":"m","messages":[{"role":"user","content":"x"}]}'
    assert read_rendering(CHAT, body).model == "m"


def test_what_only_python_reads_as_json_may_stand_in_fields_that_nobody_reads():
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":NaN,"user":"a"}'
    (prompt,) = prompts_of(read_rendering(CHAT, body))
    assert json.loads(prompt.text) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "user": "a",
    }


def test_numbers_that_are_none_are_refused_by_their_field():
    asked = read_rendering(CHAT, b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}')
    assert refused(params, asked) == (400, "BadRequestError", "temperature")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", (400, "Bad Request", "body")),
        (b"null", (400, "Bad Request", "body")),
        (b'{"a": [', (400, "Bad Request", "body.7")),
        (b'{"a": 1,}', (400, "Bad Request", "body.8")),
        (b'{"a": "\xff"}', (400, "", None)),
        (b"[" * 100_000, (400, "", None)),
        (b'{"a": ' + b"9" * 5000 + b', "b": NaN}', (400, "", None)),
        (b'{"a": NaN, "b": "' + b"x" * 300_000 + b'"}', (400, "Bad Request", "body")),
    ],
)
def test_what_is_no_body_is_refused_where_it_ends_to_be_one(body, told):
    assert refused(read_fields, body) == told


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([1.0, True, "3"][:2], [[1, 1]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([2**70], [[2**70]]),
        (["1", "2"], ["1", "2"]),
        (["a"], ["a"]),
        ("a", ["a"]),
    ],
)
def test_prompts_are_texts_or_ids_of_any_size(prompt, expected):
    made = prompts_of(completion(prompt))
    assert [each if isinstance(each, list) else json.loads(each.text)["prompt"] for each in made] == expected


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([1, "a"], "body.prompt.1"),
        (["a", 5], "body.prompt.0"),
        ([[1], "a"], "body.prompt.0"),
        ([[1], [-1]], "body.prompt.0"),
        ([1.5], "body.prompt.0"),
        ([None], "body.prompt.0"),
        (5, "body.prompt"),
        ({"prompt": "x"}, "body.prompt"),
    ],
)
def test_what_is_no_prompt_is_refused_by_its_place(prompt, param):
    assert refused(completion, prompt) == (400, "Bad Request", param)


def test_a_client_may_send_1024_prompts_and_no_more():
    assert len(prompts_of(completion(["a"] * 1024))) == 1024
    assert refused(completion, ["a"] * 1025) == (400, "BadRequestError", "prompt")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": 2}, [3, 4]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "right"}, [1, 2]),
        ({"truncate_prompt_tokens": 9}, [1, 2, 3, 4]),
        ({"truncate_prompt_tokens": "2"}, [3, 4]),
        ({}, [1, 2, 3, 4]),
    ],
)
def test_ids_are_truncated_without_a_tokenizer(fields, kept):
    assert prompts_of(completion([1, 2, 3, 4], **fields)) == [kept]


@pytest.mark.parametrize(("fields", "keep"), [({}, 100), ({"max_tokens": 5}, 99)])
def test_to_keep_all_that_fits_leaves_room_for_an_answer_that_is_asked_for(fields, keep):
    (prompt,) = prompts_of(chat(truncate_prompt_tokens=-1, **fields))
    assert json.loads(prompt.text)["truncate_prompt_tokens"] == keep


def test_lax_values_are_handed_on_as_what_they_mean():
    (prompt,) = prompts_of(chat(add_generation_prompt="false", truncate_prompt_tokens="7"))
    assert json.loads(prompt.text)["add_generation_prompt"] is False
    assert json.loads(prompt.text)["truncate_prompt_tokens"] == 7


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [], "n": "x"}, ("BadRequestError", "tools")),
        ({"n": "x", "temperature": 9}, ("Bad Request", "body.n")),
        ({"tools": [{"type": "function"}]}, ("Bad Request", "body.tools.0.function")),
        ({"stop_token_ids": ["x"]}, ("Bad Request", "body.stop_token_ids")),
        ({"top_logprobs": 3}, ("BadRequestError", "top_logprobs")),
        ({"request_id": None}, ("Bad Request", "body.request_id")),
        ({"bad_words": None}, ("Bad Request", "body.bad_words")),
    ],
)
def test_of_two_faults_the_contradiction_is_told_first_then_the_type(fields, told):
    status, kind, param = refused(chat, **fields)
    assert (status, kind) == (400, told[0])
    assert param is not None
    assert param.startswith(told[1])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"use_beam_search": True, "messages": []}, None),
        ({"max_tokens": 500, "messages": []}, "max_tokens"),
        ({"max_completion_tokens": 500}, "max_completion_tokens"),
        ({"truncate_prompt_tokens": 101}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 0}, None),
        ({"mm_processor_kwargs": {"a": 1}}, "mm_processor_kwargs"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, None),
        ({"messages": []}, None),
        ({"messages": None}, None),
        ({"kv_transfer_params": {"prompt_token_ids": []}}, "kv_transfer_params.prompt_token_ids"),
        ({"kv_transfer_params": {"prompt_token_ids": [-1]}}, "kv_transfer_params.prompt_token_ids"),
        ({"kv_transfer_params": {"prompt_token_ids": [True]}}, "kv_transfer_params.prompt_token_ids"),
    ],
)
def test_what_needs_the_model_is_checked_when_it_is_known(fields, param):
    asked = chat(**fields)
    assert refused(prompts_of, asked) == (400, "BadRequestError", param)


def test_ids_of_a_prefill_stage_are_the_prompt_unless_the_answer_echoes_it():
    given = {"prompt_token_ids": [4, 2], "a": 1}
    assert prompts_of(chat(kv_transfer_params=given)) == [[4, 2]]
    (prompt,) = prompts_of(chat(kv_transfer_params=given, echo=True))
    assert not isinstance(prompt, list)
    assert params(chat(kv_transfer_params=given))["extra_args"] == {"kv_transfer_params": {"a": 1}}
    kept = params(completion(kv_transfer_params=given))["extra_args"]
    assert kept == {"kv_transfer_params": given}


@pytest.mark.parametrize(
    ("fields", "carried"),
    [
        ({"temperature": 0.001}, {"temperature": 0.01}),
        ({"temperature": True}, {"temperature": 1}),
        ({"logprobs": True, "logprob_token_ids": [1]}, {"logprob_token_ids": [1], "logprobs": None}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"stop": "END"}, {"stop": ["END"], "output_text_buffer_length": 2}),
        ({"stop_token_ids": [1, 2, 1]}, {"stop_token_ids": [1, 2]}),
        ({"logit_bias": {"5": 500}}, {"logit_bias": {"5": 100}}),
        ({"vllm_xargs": {"b": 2}, "ec_transfer_params": {"a": 1}},
         {"extra_args": {"b": 2, "ec_transfer_params": {"a": 1}}}),
        ({"repetition_detection": {"min_count": 2}},
         {"repetition_detection": {"max_pattern_size": 0, "min_pattern_size": 0, "min_count": 2}}),
        ({"stream": True, "stream_interval": 4}, {"stream_interval": 4, "output_kind": 1}),
        ({"max_tokens": 70}, {"max_tokens": 50}),
        ({"max_tokens": 16}, {"max_tokens": None}),
        ({"echo": True}, {"prompt_logprobs": 0, "skip_reading_prefix_cache": True}),
    ],
)  # fmt: skip
def test_sampling_fields_are_carried_as_vllm_states_them(fields, carried):
    stated = params(chat(**fields))
    assert {name: stated.get(name) for name in carried} == carried


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}},
            {"json": {"a": 1}},
        ),
        ({"structured_outputs": {"regex": "("}}, {"regex": "("}),
        ({"structured_outputs": {"regex": "("}, "response_format": {"type": "text"}}, {"regex": "("}),
    ],
)
def test_structured_outputs_are_stated_whole(fields, wanted):
    stated = params(chat(**fields))["structured_outputs"]
    assert {name: value for name, value in stated.items() if value} == wanted
    assert list(stated) == [
        *("json", "regex", "choice", "grammar", "json_object", "disable_any_whitespace"),
        *("disable_additional_properties", "whitespace_pattern", "structural_tag", "_backend"),
        "_backend_was_auto",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 100),
        ({"max_tokens": 70}, 70),
        ({"max_completion_tokens": 70}, 70),
        ({"max_tokens": None, "max_completion_tokens": None}, 100),
    ],
)
def test_a_models_bound_for_answers_is_for_chats_that_have_none(given, expected):
    asked = chat(**given)
    sampling = asked.sampling.with_defaults({"max_tokens": 100}, chat=True)
    assert sampling.params(chat=True, room=200)["max_tokens"] == expected
    assert sampling.params(chat=True, room=30)["max_tokens"] == 30


def test_an_answer_cannot_be_longer_than_what_the_context_has_left():
    assert params(chat(min_tokens=50), room=50)["max_tokens"] == 50
    assert refused(params, chat(min_tokens=51), room=50) == (400, "BadRequestError", None)


def test_a_model_that_is_greedy_by_default_has_no_other_shape():
    sampling = chat().sampling.with_defaults({"temperature": 0, "top_p": 0.5, "top_k": 5}, chat=True)
    told = sampling.params(chat=True, room=50)
    assert told["temperature"] == 0
    assert told.keys().isdisjoint({"top_p", "top_k", "min_p"})


def test_nothing_structured_is_asked_for_by_a_text():
    assert "structured_outputs" not in params(chat(response_format={"type": "text"}))


def test_tokenize_reads_less_of_a_chat_than_rendering_does():
    said = {"role": "assistant", "content": "4", "reasoning_content": "easy", "reasoning": "r"}
    body = {"messages": [said], "tools": [], "reasoning_effort": "none", "truncate_prompt_tokens": 1}
    _, prompt = read_tokenizing(json.dumps(body).encode()).prompt("m")
    assert json.loads(prompt.text) == {
        "messages": [{"role": "assistant", "content": "4", "reasoning": "r"}],
        "model": "m",
    }


def test_tokenize_takes_messages_before_a_prompt_and_ids_before_both():
    both = {"messages": MESSAGES, "prompt": "x"}
    assert read_tokenizing(json.dumps(both).encode()).prompt("m")[0] == CHAT
    given = {**both, "kv_transfer_params": {"prompt_token_ids": [7]}}
    assert read_tokenizing(json.dumps(given).encode()).prompt("m") == (CHAT, [7])


@pytest.mark.parametrize("body", [{}, {"prompt": ["a"]}, {"messages": "x"}, {"messages": None}])
def test_tokenize_names_the_first_field_of_its_first_shape(body):
    assert refused(read_tokenizing, json.dumps(body).encode()) == (400, "Bad Request", "body.prompt")


def test_ids_to_read_are_lax_and_bounded():
    assert detokenize_ids(b'{"tokens": [1.0, true, "3"], "model": "m"}') == ([1, 1, 3], "m")
    assert refused(detokenize_ids, b'{"tokens": [1, -1]}') == (400, "Bad Request", "body.tokens.1")
    assert refused(detokenize_ids, b'{"tokens": [4294967296]}') == (400, "BadRequestError", None)
    assert refused(detokenize_ids, b'{"tokens": [1], "model": 7}') == (400, "Bad Request", "body.model")


def test_ids_stand_in_the_answer_as_they_were_written():
    text = tokenized(b"[1,4294967296]", count=2, max_model_len=5, pieces=["a"])
    assert json.loads(text) == {"count": 2, "max_model_len": 5, "tokens": [1, 2**32], "token_strs": ["a"]}


@pytest.mark.parametrize("carried", [2**70, "half \ud800", -(2**64)])
def test_what_no_strict_json_takes_is_carried_on_all_the_same(carried):
    asked = completion(vllm_xargs={"a": carried})
    text = generate_request("r", b"[1]", asked=asked, sampling_params=params(asked))
    assert json.loads(text)["sampling_params"]["extra_args"] == {"a": carried}
    assert json.loads(text)["token_ids"] == [1]
