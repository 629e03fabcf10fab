"""What a model samples by where a request does not say."""

import pytest

from tokenext.generation import sampling_defaults


def test_what_vllm_takes_from_generation_config_json_is_taken_by_a_requests_names():
    given = {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": 2,
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": 0,
        "repetition_penalty": 1.05,
        "presence_penalty": 1.5,
        "frequency_penalty": 0.5,
        "max_new_tokens": 2048,
        "max_length": 20,
        "transformers_version": "5.0.0",
    }
    assert sampling_defaults(given) == {
        "temperature": 0.6,
        "top_k": 50,
        "top_p": 1.0,
        "min_p": 0,
        "repetition_penalty": 1.05,
        "presence_penalty": 1.5,
        "frequency_penalty": 0.5,
        "max_tokens": 2048,
    }


@pytest.mark.parametrize("value", [None, "0.5", True, [1]])
def test_what_is_no_number_is_no_default(value):
    assert sampling_defaults({"temperature": value, "top_k": value}) == {}


def test_whole_numbers_are_whole():
    assert sampling_defaults({"top_k": 20.5, "max_new_tokens": 5.0, "temperature": 1}) == {"temperature": 1}
