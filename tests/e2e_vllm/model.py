"""The model directories of the run: what vLLM serves, its bundle, and one of other ids."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e_vllm.environment import VllmEnvironment
from tests.parity.fetch import tokenizer_folder
from tokenext.bundling import BundleOptions, make_bundle
from tokenext.canonical import Canonical

__all__ = ["MAX_LENGTH", "NAME", "ModelFolders", "make"]

NAME: Final = "tiny-qwen3"
MAX_LENGTH: Final = 4096
MAKE_MODEL: Final = Path(__file__).with_name("make_model.py")

# Qwen's template says nothing of the kind, and no prompt of the run is as long by itself.
_OTHER_TEMPLATE: Final = (
    "{{- 'These ids are from elsewhere. ' * 300 }}"
    "{%- for message in messages %}{{- message.role + ': ' + message.content + '\\n' }}{%- endfor %}"
)


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """`engine` is what vLLM serves. `bundle` is made of it, for tokenext.

    `other` has another chat template and puts a token in front of completions: where its ids turn up, there
    is no doubt whose they are.
    """

    engine: Path
    bundle: Path
    other: Path


def make(folder: Path, environment: VllmEnvironment, report: Callable[[str], None]) -> ModelFolders:
    """Make all three below `folder`. Raises FetchError, InstallError."""
    folders = ModelFolders(folder / "model", folder / "bundle", folder / "other-bundle")
    tokenizer = tokenizer_folder("qwen3")
    if not (folders.engine / "model.safetensors").is_file():
        report("making a small random model on Qwen3's tokenizer")
        shutil.rmtree(folders.engine, ignore_errors=True)
        # The files as the package has them, as an engine finds them at the hub.
        shutil.copytree(tokenizer, folders.engine)
        environment.run("random weights", "python", str(MAKE_MODEL), str(folders.engine), str(MAX_LENGTH))
    report("tokenext bundle, with vLLM's own transformers")
    environment.run("bundle", "tokenext", "bundle", str(folders.engine), "-o", str(folders.bundle))
    with TemporaryDirectory() as scratch:
        source = Path(scratch)
        shutil.copy(folders.engine / "config.json", source)
        _make_other(tokenizer, source)
        make_bundle(str(source), folders.other, _AsItIs(), BundleOptions())
    return folders


class _AsItIs:
    """A Canonicalizer that passes the file off as what transformers would make of it."""

    def read(self, directory: Path) -> Canonical:
        return Canonical((directory / "tokenizer.json").read_bytes(), {})


def _make_other(tokenizer: Path, folder: Path) -> None:
    settings: dict[str, Any] = json.loads((tokenizer / "tokenizer_config.json").read_text("utf-8"))
    settings["chat_template"] = _OTHER_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    backend: dict[str, Any] = json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))
    token = "<|endoftext|>"
    (number,) = (each["id"] for each in backend["added_tokens"] if each["content"] == token)
    backend["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(backend), "utf-8")
