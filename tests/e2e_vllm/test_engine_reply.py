"""Where vLLM's responses have the ids of the prompt and its counts."""

import json

from tests.e2e_vllm.engine_reply import read


def whole(document, status=200):
    return read("id", status, "application/json", json.dumps(document).encode())


def streamed(*documents):
    events = [*map(json.dumps, documents), "[DONE]"]
    return read("id", 200, "text/event-stream", "".join(f"data: {each}\n\n" for each in events).encode())


def test_a_chat_has_its_ids_at_the_top():
    usage = {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    reply = whole({"choices": [{"index": 0}], "prompt_token_ids": [5, 6], "usage": usage})
    assert (reply.prompts, reply.prompt_tokens, reply.cached_tokens) == (((5, 6),), 2, 1)


def test_completions_have_them_in_each_choice_and_the_same_ones_count_once():
    choices = [
        {"index": index, "prompt_token_ids": ids} for index, ids in ((2, [7]), (0, [5, 6]), (1, [5, 6]))
    ]
    assert whole({"choices": choices, "usage": {"prompt_tokens": 3}}).prompts == ((5, 6), (7,))


def test_a_stream_has_them_in_its_first_event_and_the_usage_in_its_last():
    first = {"choices": [{"index": 0}], "prompt_token_ids": [5, 6]}
    reply = streamed(first, {"choices": [{"index": 0}]}, {"choices": [], "usage": {"prompt_tokens": 2}})
    assert (reply.prompts, reply.prompt_tokens, reply.cached_tokens) == (((5, 6),), 2, None)


def test_an_error_inside_a_stream_is_an_error():
    reply = streamed({"choices": [{"index": 0}], "prompt_token_ids": [5]}, {"error": {"message": "too bad"}})
    assert (reply.prompts, reply.error) == ((), "too bad")


def test_an_error_keeps_the_servers_words():
    reply = whole({"error": {"message": "no such model"}}, status=404)
    assert (reply.status, reply.error) == (404, "no such model")


def test_apis_without_an_echo_count_what_was_cached_apart_or_not():
    assert whole({"usage": {"input_tokens": 100}}).prompt_tokens == 100
    assert whole({"usage": {"input_tokens": 4, "cache_read_input_tokens": 96}}).prompt_tokens == 100


def test_what_is_no_response_of_this_kind_is_an_error():
    assert "JSONDecodeError" in read("id", 200, "text/html", b"<html>").error
    assert "not an OpenAI response" in whole([1]).error
