"""The stack's own model: small, complete, and rendered alike by jinja2 and by Dynamo's front end."""

import json
import platform
from pathlib import Path

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from loadtests.stack import train_model
from loadtests.stack.model_source import DEFAULT_MODEL, ModelError, resolve

TRAINED_WITH = "3.11.7"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    config = json.loads((DEFAULT_MODEL / "tokenizer_config.json").read_text())
    return environment.from_string(config["chat_template"])


def test_the_model_takes_less_than_a_megabyte():
    assert sum(path.stat().st_size for path in DEFAULT_MODEL.iterdir()) < 1_000_000


@pytest.mark.parametrize(
    "text", ["", "Hello, world!", "naïve café — 漢字 🙂", "  tabs\t and\r\nlines\n\n", "1234567890"]
)
def test_any_text_encodes_and_decodes_to_itself(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("token", [*train_model.SPECIAL_TOKENS, *train_model.MARKUP_TOKENS])
def test_special_and_markup_tokens_are_one_id_inside_text(tokenizer, token):
    ids = tokenizer.encode(f"before{token}after", add_special_tokens=False).ids
    assert ids.count(tokenizer.token_to_id(token)) == 1


def test_the_configuration_names_ids_that_the_tokenizer_has(tokenizer):
    config = json.loads((DEFAULT_MODEL / "config.json").read_text())
    assert config["vocab_size"] == tokenizer.get_vocab_size()
    assert config["eos_token_id"] == tokenizer.token_to_id("<|im_end|>")


def test_the_configuration_is_what_the_training_script_writes(tokenizer):
    for name, expected in (
        ("tokenizer_config.json", train_model.tokenizer_config()),
        ("config.json", train_model.model_config(tokenizer)),
        ("generation_config.json", train_model.generation_config(tokenizer)),
    ):
        assert json.loads((DEFAULT_MODEL / name).read_text()) == expected


@pytest.mark.skipif(platform.python_version() != TRAINED_WITH, reason="other docstrings, hence other ids")
def test_training_again_gives_the_same_tokenizer(tokenizer):
    assert train_model.train().to_str() == tokenizer.to_str()


def test_a_turn_is_rendered_between_its_marks(template):
    rendered = template.render(messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_thinking_can_be_turned_off(template):
    rendered = template.render(
        messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=True, enable_thinking=False
    )
    assert rendered.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_conversation_with_tools_and_reasoning_keeps_the_earlier_prompt_as_its_prefix(template):
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages: list[dict] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
    ]
    first = template.render(messages=messages, tools=tools, add_generation_prompt=True)
    messages += [
        {"role": "assistant", "content": None, "reasoning_content": "I need the tool.", "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
    ]
    second = template.render(messages=messages, tools=tools, add_generation_prompt=True)
    assert second.startswith(first)
    assert second.removeprefix(first) == (
        "<think>\nI need the tool.\n</think>\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert first.count("Be brief.") == 1
    assert '"name": "get_weather"' in first


def test_without_a_source_the_model_is_the_stacks_own():
    assert resolve(None).folder == DEFAULT_MODEL


def test_a_directory_is_named_after_its_folder(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    model = resolve(str(tmp_path))
    assert (model.name, model.folder) == (tmp_path.name, tmp_path)


def test_a_directory_that_lacks_files_is_an_error_that_names_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks tokenizer\.json, tokenizer_config\.json"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("source", ["/no/such/folder", "./missing", "missing", "a/b/c", ""])
def test_a_source_that_is_neither_directory_nor_hub_id_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such model directory"):
        resolve(source)


def test_a_file_is_no_model_directory(tmp_path):
    file = Path(tmp_path / "config.json")
    file.write_text("{}")
    with pytest.raises(ModelError, match="no such model directory"):
        resolve(str(file))
