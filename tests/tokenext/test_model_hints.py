import pytest

from tokenext.model_hints import Renderer, context_length, renderer


@pytest.mark.parametrize(
    ("model_type", "files", "expected"),
    [
        ("qwen3", ["tokenizer.json"], Renderer.CHAT_TEMPLATE),
        ("", [], Renderer.CHAT_TEMPLATE),
        ("gpt_oss", ["tokenizer.json"], Renderer.HARMONY),
        ("mistral3", ["tokenizer.json", "tekken.json"], Renderer.MISTRAL),
        ("mistral", ["tokenizer.model.v3"], Renderer.MISTRAL),
        ("mistral", ["tokenizer.model", "tokenizer.json"], Renderer.CHAT_TEMPLATE),
        ("deepseek_v32", ["tokenizer.json"], Renderer.DEDICATED),
    ],
)
def test_who_renders_is_told_by_model_type_and_files(model_type, files, expected):
    assert renderer(model_type, files) is expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": "4096"}, None),
        ({"max_position_embeddings": 0}, None),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 131072),
        ({"max_position_embeddings": 32768, "rope_scaling": None}, 32768),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_theta": 1e6}}, 32768),
    ],
)
def test_the_longest_reading_of_the_context_length_counts(config, expected):
    assert context_length(config) == expected
