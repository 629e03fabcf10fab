import json
import shutil
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import orjson
import pytest

from extproc.settings_file import SettingsError
from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.bundle import Contents, Origin, compose
from tokenext.bundling import BundleOptions, make_bundle
from tokenext.canonical import FakeCanonicalizer
from tokenext.catalog import Catalog
from tokenext.content_format import ContentFormat
from tokenext.loading import load_catalog, load_model
from tokenext.openai import Api, parse, read_body
from tokenext.parity import OracleKind, Verification
from tokenext.prefix_cache import PrefixCache
from tokenext.prefix_tree import PrefixTree
from tokenext.profiles import InexactReason
from tokenext.settings import ModelSettings, decode


def load(*models: dict) -> Catalog:
    settings = decode(json.dumps({"listen": "127.0.0.1:1", "models": models}).encode(), source="t.yaml")
    return load_catalog(settings, source="t.yaml", now=lambda: datetime.now(UTC))


def problem(*models: dict) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*models)
    return str(caught.value)


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    """A model directory to break."""
    return shutil.copytree(model_dir, tmp_path / "model")


def test_a_model_is_loaded_whole(model_dir):
    catalog = load(
        {"name": "m", "aliases": ["a"], "source": str(model_dir), "handoff": "dynamo", "max_length": 9}
    )
    model = catalog.find("a")
    assert model is not None
    assert (model.name, model.handoff, model.max_length) == ("m", "dynamo", 9)
    assert (model.engine.name, model.profile.name) == ("fastokens", "dynamo")
    body = read_body(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    prompt = model.profile.chat(parse(Api.CHAT, body))
    assert prompt.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_of_the_operator_is_used_and_changes_the_digest(model_dir, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(CHAT_TEMPLATE + "!")
    plain, other = (
        load({"name": "m", "source": str(model_dir), **extra}).models[0]
        for extra in ({}, {"chat_template": str(own)})
    )
    body = read_body(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    assert other.profile.chat(parse(Api.CHAT, body)).text.endswith("assistant\n!")
    assert plain.digest != other.digest


@pytest.mark.parametrize("model_type", ["deepseek_v3", "deepseek_v32", "gpt_oss", "kimi_k3", "inkling"])
def test_models_that_engines_have_code_of_their_own_for_are_never_exact(copy, model_type):
    (copy / "config.json").write_text(json.dumps({"model_type": model_type}))
    model = load({"name": "m", "source": str(copy)}).models[0]
    body = read_body(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    assert model.profile.chat(parse(Api.CHAT, body)).inexact is InexactReason.DEDICATED_RENDERER


def test_a_missing_directory_names_file_and_key():
    assert problem({"name": "m", "source": "/no/such"}).startswith(
        "t.yaml: models[0].source: '/no/such' is neither"
    )


def test_a_broken_tokenizer_names_its_file(copy):
    (copy / "tokenizer.json").write_text("{}")
    assert problem({"name": "m", "source": str(copy)}).startswith(
        f"{copy}/tokenizer.json: is no usable tokenizer: "
    )


def test_a_template_that_does_not_compile_is_named_with_its_line(copy, model_dir):
    (copy / "chat_template.jinja").write_text("a\n{% if %}")
    told = problem({"name": "fine", "source": str(model_dir)}, {"name": "m", "source": str(copy)})
    assert told.startswith(f"t.yaml: models[1]: the chat template of {copy} cannot be compiled: line 2: ")


def test_an_engine_that_cannot_serve_the_model_is_named(copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    told = problem({"name": "m", "source": str(copy), "engine": "fastokens"})
    assert told.startswith("t.yaml: models[0].engine: fastokens does not take this tokenizer: ")
    assert load({"name": "m", "source": str(copy)}).models[0].engine.name == "huggingface"


def bundle(source: Path, output: Path, **options: object) -> Path:
    make_bundle(str(source), output, FakeCanonicalizer(), BundleOptions(**options))
    return output


def test_a_bundle_is_the_same_model_as_its_source(model_dir, tmp_path):
    made = bundle(model_dir, tmp_path / "b")
    plain, bundled = (
        load({"name": "m", "source": str(each), "handoff": "dynamo"}).models[0] for each in (model_dir, made)
    )
    assert bundled.digest == plain.digest
    assert (plain.max_length, bundled.max_length) == (None, 4096)
    assert plain.max_model_len == bundled.max_model_len == 4096


def test_a_bundle_has_the_tokenizer_of_either_kind_of_engine(model_dir, tmp_path):
    made = bundle(model_dir, tmp_path / "b")
    canonical = FakeCanonicalizer().read(model_dir).tokenizer_json

    def in_use(profile: str) -> bytes:
        settings = msgspec.convert({"name": "m", "source": str(made), "profile": profile}, ModelSettings)
        return load_model(settings, "m", source="t", now=lambda: datetime.now(UTC)).tokenizer_json

    assert in_use("dynamo") == (model_dir / "tokenizer.json").read_bytes()
    assert in_use("vllm") == canonical


THROUGH_TRANSFORMERS = ["vllm", "sglang", "transformers"]


@pytest.mark.parametrize("profile", THROUGH_TRANSFORMERS)
def test_a_directory_is_not_what_engines_make_of_it_through_transformers(model_dir, tmp_path, profile):
    """Llama 2's tokenizer.json has other ids than vLLM (RULES.md, E1), and serve cannot ask transformers."""
    unproved = load({"name": "m", "source": str(model_dir), "profile": profile}).models[0]
    assert unproved.doubt is InexactReason.TOKENIZER
    assert "`tokenext bundle` would make" in unproved.engine_reason
    make_bundle(str(model_dir), tmp_path / "file only", None, BundleOptions())
    unproved = load({"name": "m", "source": str(tmp_path / "file only"), "profile": profile}).models[0]
    assert unproved.doubt is InexactReason.TOKENIZER
    bundled = load(
        {"name": "m", "source": str(bundle(model_dir, tmp_path / "b")), "profile": profile}
    ).models[0]
    assert bundled.doubt is None
    assert "bundle" not in bundled.engine_reason


def test_vllm_takes_mistrals_own_tokenizer_where_its_files_are(copy, tmp_path):
    (copy / "tekken.json").write_text("{}")
    made = bundle(copy, tmp_path / "b")
    assert load({"name": "m", "source": str(made), "handoff": "vllm"}).models[0].doubt is (
        InexactReason.DEDICATED_RENDERER
    )
    assert load({"name": "m", "source": str(made), "handoff": "dynamo"}).models[0].doubt is None


@pytest.mark.parametrize("model_type", ["glm4_moe", "minimax_m3", "kimi_k25", "gemma4"])
def test_what_dynamos_workers_may_do_to_prompts_is_not_seen_from_here(copy, model_type):
    (copy / "config.json").write_text(json.dumps({"model_type": model_type}))
    model = load({"name": "m", "source": str(copy), "handoff": "dynamo"}).models[0]
    assert model.doubt is InexactReason.ENGINE_RULE
    assert "by its worker's parsers" in model.engine_reason


def test_dynamo_reads_the_file_and_a_model_without_one_is_in_doubt(model_dir, tmp_path):
    dynamo = {"name": "m", "handoff": "dynamo"}
    assert load({**dynamo, "source": str(model_dir)}).models[0].doubt is None
    parts = compose(
        Contents(origin=Origin({}), versions={}),
        tokenizer_json=None,
        transformers_json=(model_dir / "tokenizer.json").read_bytes(),
        templates={"default": "{{ messages }}"},
        formats={"default": ContentFormat.STRING},
    )
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    assert load({**dynamo, "source": str(tmp_path)}).models[0].doubt is InexactReason.TOKENIZER
    assert load({"name": "m", "handoff": "vllm", "source": str(tmp_path)}).models[0].doubt is None


def test_settings_stand_over_what_a_bundle_says(model_dir, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text("{{ a }}{{ b }}")
    made = bundle(model_dir, tmp_path / "b", chat_template_kwargs={"a": 1, "b": 2})
    model = load(
        {
            "name": "m",
            "source": str(made),
            "chat_template": str(own),
            "chat_template_kwargs": {"b": 3},
            "max_length": 9,
        }
    ).models[0]
    body = read_body(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    assert model.profile.chat(parse(Api.CHAT, body)).text == "13"
    assert model.max_length == model.max_model_len == 9


def test_the_models_sampling_defaults_count_unless_the_settings_want_vllms(model_dir, tmp_path):
    source = shutil.copytree(model_dir, tmp_path / "source")
    (source / "generation_config.json").write_text('{"temperature": 0.6}')
    for folder in (source, bundle(source, tmp_path / "b")):
        given = {"name": "m", "source": str(folder)}
        assert load(given).models[0].sampling_defaults == {"temperature": 0.6}
        assert load({**given, "generation_config": "vllm"}).models[0].sampling_defaults == {}


def test_a_bundle_of_before_has_the_one_length_that_it_has(model_dir, tmp_path):
    made = bundle(model_dir, tmp_path / "b")
    manifest = json.loads((made / "bundle.json").read_text())
    older = {
        name: each for name, each in manifest.items() if name not in {"max_model_len", "sampling_defaults"}
    }
    kept = {name: each for name, each in older.items() if name != "digest"}
    older["digest"] = f"sha256:{sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()}"
    (made / "bundle.json").write_text(json.dumps(older))
    model = load({"name": "m", "source": str(made)}).models[0]
    assert (model.max_length, model.max_model_len, model.sampling_defaults) == (4096, 4096, {})


def test_a_changed_bundle_does_not_start(model_dir, tmp_path):
    made = bundle(model_dir, tmp_path / "b")
    (made / "chat_template.jinja").write_text("other")
    assert problem({"name": "m", "source": str(made)}).startswith(f"{made}/chat_template.jinja: was changed")


def test_the_kind_of_engine_is_that_of_the_profile_unless_given(model_dir):
    source = {"name": "m", "source": str(model_dir), "handoff": "dynamo"}
    asked = load({**source, "verify": {"engine": "http://e"}}).models[0].verification
    assert asked == Verification("http://e", OracleKind.DYNAMO, "m", 300.0, True)
    asked = load({**source, "verify": {"engine": "http://e", "kind": "vllm"}}).models[0].verification
    assert asked is not None
    assert asked.kind is OracleKind.VLLM
    assert load(source).models[0].verification is None


def test_models_of_one_tokenizer_share_what_is_kept_of_their_prompts(model_dir):
    settings = {
        "listen": "127.0.0.1:1",
        "models": [{"name": name, "source": str(model_dir)} for name in "mn"],
    }
    tree = PrefixTree(1 << 20)
    catalog = load_catalog(
        decode(json.dumps(settings).encode(), source="t.yaml"),
        source="t.yaml",
        now=lambda: datetime.now(UTC),
        prefix_tree=tree,
    )
    text = "<|im_start|>user\n" + "Once upon a time, " * 200 + "<|im_end|>\n"
    ids = [model.engine.encode(text, add_special_tokens=False) for model in catalog.models]
    assert ids[0] == ids[1]
    assert (tree.snapshot().misses, tree.snapshot().hits) == (1, 1)
    # Those that its chat template and its special tokens name.
    assert {model.prefix_cache for model in catalog.models} == {"on: cuts behind 5 added tokens"}


def test_without_a_tree_nothing_is_kept(model_dir):
    model = load({"name": "m", "source": str(model_dir)}).models[0]
    assert not isinstance(model.engine, PrefixCache)
    assert model.prefix_cache == "off: it has no budget"
