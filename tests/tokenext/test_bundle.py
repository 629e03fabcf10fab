"""The form of a bundle: what is written can be read, and nothing else can."""

import json
from pathlib import Path

import pytest

from extproc.settings_file import SettingsError
from tokenext.bundle import MANIFEST, Contents, Origin, compose, read_bundle
from tokenext.content_format import ContentFormat
from tokenext.model_hints import Renderer

CONTENTS = Contents(
    origin=Origin({"tokenizer.json": "sha256:0"}, "org/name", "0" * 40),
    versions={"transformers": "5"},
    special_tokens={"eos_token": "</s>"},
    chat_template_kwargs={"enable_thinking": False},
    max_length=4096,
    max_model_len=2048,
    sampling_defaults={"temperature": 0.6},
    model_type="qwen3",
    renderer=Renderer.HARMONY,
)
TEMPLATES = {"tool_use": "tools é\r\n", "default": "plain"}
FORMATS = {"tool_use": ContentFormat.PARTS, "default": ContentFormat.STRING}


def files(**changed: object) -> dict[str, bytes]:
    given = {
        "tokenizer_json": b"{}",
        "transformers_json": b"[]",
        "templates": TEMPLATES,
        "formats": FORMATS,
        **changed,
    }
    return compose(CONTENTS, **given)


def write(directory: Path, parts: dict[str, bytes]) -> Path:
    for name, content in parts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def problem(directory: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_bundle(directory)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path):
    found = read_bundle(write(tmp_path, files()))
    assert found is not None
    manifest, model = found
    assert model.tokenizer_json == b"{}"
    assert model.transformers_json == b"[]"
    assert list(model.chat_templates.items()) == [("default", "plain"), ("tool_use", "tools é\r\n")]
    assert model.special_tokens == {"eos_token": "</s>"}
    assert (model.model_type, model.renderer, model.max_positions) == ("qwen3", Renderer.HARMONY, 4096)
    assert (model.max_model_len, model.sampling_defaults) == (2048, {"temperature": 0.6})
    assert manifest.chat_templates["tool_use"].content_format is ContentFormat.PARTS
    assert manifest.chat_template_kwargs == {"enable_thinking": False}
    assert manifest.origin.revision == "0" * 40


def test_either_tokenizer_is_enough(tmp_path):
    found = read_bundle(write(tmp_path, files(tokenizer_json=None)))
    assert found is not None
    assert found[1].tokenizer_json == found[1].transformers_json == b"[]"


def test_the_same_input_gives_the_same_bytes_in_any_order():
    assert files() == files(templates=dict(reversed(TEMPLATES.items())))
    assert files() != files(tokenizer_json=b"{ }")


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path):
    assert read_bundle(tmp_path) is None


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer.transformers.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    ],
)
def test_a_changed_or_missing_file_is_named(tmp_path, name):
    write(tmp_path, files())
    (tmp_path / name).write_bytes(b"other")
    assert problem(tmp_path).startswith(f"{tmp_path / name}: was changed")
    (tmp_path / name).unlink()
    assert problem(tmp_path).startswith(f"{tmp_path / name}: is missing")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_length", 9),
        ("special_tokens", {}),
        ("chat_template_kwargs", {"enable_thinking": True}),
        ("digest", "sha256:0"),
        ("files", {}),
        ("renderer", "nobody"),
        ("extra", 1),
    ],
)
def test_a_changed_manifest_is_named(tmp_path, key, value):
    write(tmp_path, files())
    path = tmp_path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert problem(tmp_path).startswith(f"{path}: was changed")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    assert problem(tmp_path).startswith(f"{tmp_path / MANIFEST}: ")


def test_a_manifest_of_another_format_says_so(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format": 2}')
    assert "has format 2, this tokenext reads 1" in problem(tmp_path)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a\nb"])
def test_a_templates_name_never_becomes_a_path(name):
    with pytest.raises(ValueError, match="cannot be a chat template's name"):
        files(templates={name: "t"}, formats={name: ContentFormat.STRING})
