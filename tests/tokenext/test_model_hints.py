import pytest

from tokenext.model_hints import Renderer, context_length, max_model_len, renderer


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


def yarn(factor: float) -> dict:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 4096}


# What vLLM 0.32's own functions made of these, but for those without an answer.
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "qwen3", "max_position_embeddings": 40960, "rope_scaling": None}, 40960),
        ({"model_type": "qwen3", "max_position_embeddings": 32768, "rope_scaling": yarn(4.0)}, 32768),
        ({"model_type": "deepseek_v3", "max_position_embeddings": 163840, "rope_scaling": yarn(40)}, 163840),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
            },
            131072,
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 4096,
                "rope_scaling": {"type": "linear", "factor": 4.0},
            },
            16384,
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 4096,
                "rope_scaling": {"type": "dynamic", "factor": 2},
            },
            8192,
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 4096,
                "rope_scaling": {"rope_type": "default", "factor": None},
            },
            4096,
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 8192,
                "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
            },
            16384,
        ),
        ({"model_type": "cohere", "max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 8192,
                "max_sequence_length": 2048,
                "seq_length": 4096,
            },
            2048,
        ),
        (
            {
                "model_type": "phi3",
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]},
            },
            4096,
        ),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "mpt", "max_seq_len": 2048}, 2048),
        (
            {
                "model_type": "gemma3",
                "text_config": {
                    "model_type": "gemma3_text",
                    "max_position_embeddings": 131072,
                    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                },
            },
            131072,
        ),
        (
            {
                "model_type": "gemma4_text",
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
            131072,
        ),
        (
            {
                "model_type": "qwen2_5_vl",
                "max_position_embeddings": 128000,
                "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            },
            128000,
        ),
        (
            {"model_type": "llava", "text_config": {"model_type": "llama", "max_position_embeddings": 4096}},
            4096,
        ),
        # Of what a file leaves out transformers' class decides.
        ({}, None),
        ({"model_type": "gemma3", "text_config": {}, "max_position_embeddings": 0}, None),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 1}, "max_position_embeddings": 8192}, None),
        (
            {"model_type": "phi3", "max_position_embeddings": 131072, "rope_scaling": {"type": "longrope"}},
            None,
        ),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": "4096"}, None),
    ],
)
def test_vllms_context_is_what_it_would_read_from_config_json(config, expected):
    assert max_model_len(config) == expected
