import json
from pathlib import Path

import pytest

from extproc.settings_file import SettingsError
from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.model_files import read_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def problem(directory: Path, **options: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_model(directory, **options)
    return str(caught.value)


def test_a_whole_directory_is_read(model_dir):
    files = read_model(model_dir)
    assert files.tokenizer_json == (model_dir / "tokenizer.json").read_bytes()
    assert files.chat_templates == {"default": CHAT_TEMPLATE}
    assert files.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert (files.model_type, files.max_positions) == ("qwen3", 4096)


def test_a_tokenizer_alone_is_enough(directory):
    files = read_model(directory)
    assert (files.chat_templates, files.special_tokens) == ({}, {})
    assert (files.model_type, files.max_positions) == ("", None)


def test_vllms_context_and_sampling_defaults_come_from_the_models_configuration(directory):
    write(directory / "config.json", {"max_position_embeddings": 4096})
    write(directory / "generation_config.json", {"temperature": 0.6, "eos_token_id": 2})
    files = read_model(directory)
    assert (files.max_model_len, files.sampling_defaults) == (4096, {"temperature": 0.6})


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_generation_config_is_none_as_in_vllm(directory, text):
    write(directory / "generation_config.json", text)
    assert read_model(directory).sampling_defaults == {}


def test_a_missing_tokenizer_names_its_file(tmp_path):
    assert problem(tmp_path) == f"{tmp_path}/tokenizer.json: is missing; a model directory needs it"


def test_a_directory_in_the_files_place_names_it(tmp_path):
    (tmp_path / "tokenizer.json").mkdir()
    assert problem(tmp_path) == f"{tmp_path}/tokenizer.json: cannot be read: Is a directory"


def test_special_tokens_come_as_strings_and_as_objects(directory):
    write(
        directory / "tokenizer_config.json",
        {
            "bos_token": {"content": "<s>", "lstrip": False},
            "eos_token": "</s>",
            "unk_token": None,
            "add_bos_token": True,
        },
    )
    assert read_model(directory).special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


class TestChatTemplates:
    def config(self, directory: Path, template: object) -> None:
        write(directory / "tokenizer_config.json", {"chat_template": template})

    @pytest.mark.parametrize(
        "given",
        [
            [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}],
            {"default": "d", "tool_use": "t"},
        ],
    )
    def test_several_by_name(self, directory, given):
        self.config(directory, given)
        assert read_model(directory).chat_templates == {"default": "d", "tool_use": "t"}

    def test_a_file_wins_over_the_config(self, directory):
        self.config(directory, "config")
        write(directory / "chat_template.json", {"chat_template": "legacy"})
        assert read_model(directory).chat_templates == {"default": "legacy"}
        write(directory / "chat_template.jinja", "file é")
        assert read_model(directory).chat_templates == {"default": "file é"}

    def test_more_files_add_more_names(self, directory):
        write(directory / "chat_template.jinja", "d")
        write(directory / "additional_chat_templates" / "tool_use.jinja", "t")
        assert read_model(directory).chat_templates == {"default": "d", "tool_use": "t"}

    def test_a_template_of_the_operator_replaces_them_all(self, directory, tmp_path):
        write(directory / "chat_template.jinja", "d")
        own = tmp_path / "own.jinja"
        write(own, "own")
        assert read_model(directory, chat_template=own).chat_templates == {"default": "own"}

    def test_a_template_of_the_operator_must_be_there(self, directory, tmp_path):
        assert problem(directory, chat_template=tmp_path / "no").startswith(f"{tmp_path}/no: is missing")

    @pytest.mark.parametrize("given", [3, ["d"], [{"name": "default"}], {"default": 3}])
    def test_what_is_no_template_names_file_and_key(self, directory, given):
        self.config(directory, given)
        assert problem(directory).startswith(f"{directory}/tokenizer_config.json: chat_template: must be")

    def test_a_template_that_is_no_text_names_its_file(self, directory):
        (directory / "chat_template.jinja").write_bytes(b"\xff")
        assert problem(directory) == f"{directory}/chat_template.jinja: is not UTF-8 text"


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "chat_template.json"])
@pytest.mark.parametrize(("content", "rule"), [("{", "is not JSON: "), ("[]", "must hold a JSON object")])
def test_a_broken_file_is_named(directory, name, content, rule):
    write(directory / name, content)
    assert problem(directory).startswith(f"{directory}/{name}: {rule}")
