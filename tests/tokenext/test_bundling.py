import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from extproc.settings_file import SettingsError
from tokenext.bundle import read_bundle
from tokenext.bundling import BundleOptions, make_bundle
from tokenext.canonical import Canonical, CanonicalError, FakeCanonicalizer
from tokenext.content_format import ContentFormat
from tokenext.model_hints import Renderer

PLAIN = BundleOptions()


@pytest.fixture
def source(model_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model_dir, tmp_path / "source")


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def problem(source: Path | str, output: Path, options: BundleOptions = PLAIN) -> str:
    with pytest.raises(SettingsError) as caught:
        make_bundle(str(source), output, None, options)
    return str(caught.value)


def test_a_bundle_holds_all_that_decides_the_ids(source, tmp_path):
    options = BundleOptions(chat_template_kwargs={"enable_thinking": False})
    manifest = make_bundle(str(source), tmp_path / "b", FakeCanonicalizer(), options).manifest
    found = read_bundle(tmp_path / "b")
    assert found is not None
    model = found[1]
    assert model.tokenizer_json == (source / "tokenizer.json").read_bytes()
    assert model.transformers_json == FakeCanonicalizer().read(source).tokenizer_json
    assert model.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert manifest.max_length == 4096
    assert manifest.chat_template_kwargs == {"enable_thinking": False}
    assert manifest.chat_templates["default"].content_format is ContentFormat.STRING
    assert manifest.versions.keys() == {"tokenext-chain", "fake"}
    assert manifest.origin.files.keys() == {"tokenizer.json", "tokenizer_config.json", "config.json"}


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(source, model_dir, tmp_path):
    for place, target in ((source, "a"), (source, "b"), (model_dir, "c")):
        make_bundle(str(place), tmp_path / target, FakeCanonicalizer(), PLAIN)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")
    assert str(tmp_path) not in (tmp_path / "a" / "bundle.json").read_text()


def test_named_templates_and_an_operators_own(source, tmp_path):
    (source / "chat_template.jinja").write_text("d")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool_use.jinja").write_text(
        "{% for m in messages %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}"
    )
    manifest = make_bundle(str(source), tmp_path / "b", None, PLAIN).manifest
    formats = {name: entry.content_format for name, entry in manifest.chat_templates.items()}
    assert formats == {"default": ContentFormat.STRING, "tool_use": ContentFormat.PARTS}
    own = tmp_path / "own.jinja"
    own.write_text("own")
    manifest = make_bundle(str(source), tmp_path / "b", None, BundleOptions(chat_template=own)).manifest
    assert manifest.chat_templates.keys() == {"default"}
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == "own"
    assert not (tmp_path / "b" / "additional_chat_templates").exists()


def test_the_operator_knows_the_engines_longest_prompt_better(source, tmp_path):
    made = make_bundle(str(source), tmp_path / "b", None, BundleOptions(max_length=100))
    assert (made.manifest.max_length, made.manifest.max_model_len) == (100, 100)


def test_what_the_http_api_answers_with_is_in_the_bundle(source, tmp_path):
    (source / "generation_config.json").write_text('{"top_k": 20, "eos_token_id": 2}')
    rope = {"rope_type": "llama3", "factor": 8.0}
    (source / "config.json").write_text(json.dumps({"max_position_embeddings": 8192, "rope_scaling": rope}))
    manifest = make_bundle(str(source), tmp_path / "b", None, PLAIN).manifest
    assert (manifest.max_length, manifest.max_model_len) == (65536, 8192)
    assert manifest.sampling_defaults == {"top_k": 20}


def test_models_that_engines_render_by_code_are_marked(source, tmp_path):
    (source / "tekken.json").write_text("{}")
    assert make_bundle(str(source), tmp_path / "b", None, PLAIN).manifest.renderer is Renderer.MISTRAL


def test_a_model_without_tokenizer_json_has_the_loaders(source, tmp_path):
    class FromOtherFiles:
        def read(self, directory: Path) -> Canonical:
            return Canonical((tmp_path / "t.json").read_bytes(), {})

    (source / "tokenizer.json").rename(tmp_path / "t.json")
    make_bundle(str(source), tmp_path / "b", FromOtherFiles(), PLAIN)
    assert not (tmp_path / "b" / "tokenizer.json").exists()
    assert (tmp_path / "b" / "tokenizer.transformers.json").exists()


def test_special_tokens_that_the_loader_sees_otherwise_are_told(source, tmp_path):
    class Other:
        def read(self, directory: Path) -> Canonical:
            text = (directory / "tokenizer.json").read_bytes()
            return Canonical(text, {}, {"eos_token": "<|im_end|>", "bos_token": "<s>"})

    assert make_bundle(str(source), tmp_path / "b", Other(), PLAIN).differing == ("bos_token", "pad_token")


class TestTarget:
    def test_a_bundle_is_replaced_as_a_whole(self, source, tmp_path):
        make_bundle(str(source), tmp_path / "b", FakeCanonicalizer(), PLAIN)
        make_bundle(str(source), tmp_path / "b", None, PLAIN)
        assert "tokenizer.transformers.json" not in tree(tmp_path / "b")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "source"]

    def test_an_empty_directory_is_filled(self, source, tmp_path):
        (tmp_path / "b").mkdir()
        make_bundle(str(source), tmp_path / "b", None, PLAIN)
        assert read_bundle(tmp_path / "b") is not None

    def test_what_is_something_else_is_left_as_it_is(self, source, tmp_path):
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "precious").write_text("x")
        assert "neither empty nor a bundle" in problem(source, tmp_path / "b")
        assert problem(source, source / "config.json").endswith("is a file; a bundle is a directory")
        assert tree(tmp_path / "b") == {"precious": b"x"}

    def test_a_failure_leaves_the_old_bundle(self, source, tmp_path):
        make_bundle(str(source), tmp_path / "b", None, PLAIN)
        before = tree(tmp_path / "b")
        (source / "tokenizer.json").write_text("{}")
        assert "is no usable tokenizer" in problem(source, tmp_path / "b")
        assert tree(tmp_path / "b") == before


class TestSource:
    def test_a_broken_template_is_named(self, source, tmp_path):
        (source / "chat_template.jinja").write_text("a\n{% if %}")
        assert "its chat template 'default' cannot be compiled: line 2" in problem(source, tmp_path / "b")

    def test_a_bundle_is_not_bundled_again(self, source, tmp_path):
        make_bundle(str(source), tmp_path / "b", None, PLAIN)
        assert "is a bundle already" in problem(tmp_path / "b", tmp_path / "c")

    def test_what_the_loader_cannot_load_is_one_sentence(self, source, tmp_path):
        class Failing:
            def read(self, directory: Path) -> Canonical:
                raise CanonicalError("no such class")

        with pytest.raises(SettingsError, match="no such class"):
            make_bundle(str(source), tmp_path / "b", Failing(), PLAIN)

    def test_a_hub_id_is_pinned_to_the_commit_that_the_hub_names(self, source, tmp_path, monkeypatch):
        asked: list[dict] = []

        class Api:
            def model_info(self, repository: str, *, revision: str | None) -> object:
                asked.append({"repository": repository, "revision": revision})
                return type("Info", (), {"sha": "f" * 40})()

        def snapshot_download(repository: str, **options: object) -> str:
            asked.append({"repository": repository, **options})
            return str(source)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        manifest = make_bundle("org/name@main", tmp_path / "b", None, PLAIN).manifest
        assert (manifest.origin.hub, manifest.origin.revision) == ("org/name", "f" * 40)
        question, download = asked
        assert question == {"repository": "org/name", "revision": "main"}
        assert download["revision"] == "f" * 40
        assert not any("safetensors" in each or each == "*" for each in download["allow_patterns"])

    def test_a_hub_that_cannot_be_reached_is_one_sentence(self, tmp_path, monkeypatch):
        class Api:
            def model_info(self, repository: str, *, revision: str | None) -> object:
                raise OSError("no route")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        told = problem("org/name", tmp_path / "b")
        assert told == "SOURCE: org/name is no directory, and the hub cannot be reached"
        assert not (tmp_path / "b").exists()


def test_serving_needs_no_transformers():
    script = "import sys, tokenext.__main__; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_fake_canonicalizer_keeps_the_tokenizer(source):
    made = FakeCanonicalizer().read(source).tokenizer_json
    assert made != (source / "tokenizer.json").read_bytes()
    assert json.loads(made) == json.loads((source / "tokenizer.json").read_text())
