"""The models that parity is measured on: a real tokenizer each, with its own chat template or one of ours.

A model directory is what an engine and `tokenext` are both given. Ours are in templates/, written for this
project in the manner of common families: few tokenizer packages carry a template with tools or thinking.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.parity.corpus.dialect import TEMPLATE as DIALECT
from tests.parity.fetch import CACHE, tokenizer_folder

__all__ = ["MODELS", "TEMPLATES", "ParityModel"]

TEMPLATES: Final = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class ParityModel:
    """`template` names a file of templates/; None is the tokenizer's own. `covers` is for `--help`.

    `dialect` is about the language of templates, and has cases of its own.
    """

    name: str
    tokenizer: str
    template: str | None
    covers: str
    model_type: str
    config: Mapping[str, Any]
    dialect: bool = False

    @property
    def real(self) -> bool:
        """Whether tokenizer and template both come from the package."""
        return self.template is None

    def folder(self) -> Path:
        """Its model directory, made anew so that an edited template counts. Raises FetchError."""
        source, folder = tokenizer_folder(self.tokenizer), CACHE / "models" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tokenizer.json").exists():
            shutil.copy(source / "tokenizer.json", folder)
        tokenizer_config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
        if self.template is not None:
            tokenizer_config["chat_template"] = (TEMPLATES / self.template).read_text("utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), "utf-8")
        config = {
            "model_type": self.model_type,
            "max_position_embeddings": 4_000_000,
            **_SMALL,
            **self.config,
        }
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        tokens = {name: config[name] for name in ("bos_token_id", "eos_token_id")}
        (folder / "generation_config.json").write_text(json.dumps(tokens), "utf-8")
        return folder


# No engine here computes anything, so only the ids must be true.
_SMALL: Final = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_QWEN3: Final = {"vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645}
_LLAMA3: Final = {"vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128009}
_LLAMA2: Final = {"vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA3: Final = {"vocab_size": 262208, "bos_token_id": 2, "eos_token_id": 106}

_ALL: Final = (
    ParityModel("qwen3", "qwen3", None, "tools, thinking", "qwen3", _QWEN3),
    ParityModel("llama3.1", "llama3_1", None, "system, multi-turn", "llama", _LLAMA3),
    ParityModel("gemma3", "gemma3", None, "content parts, role order", "gemma3_text", _GEMMA3),
    ParityModel("llama3-tools", "llama3_1", "llama3_tools.jinja", "tools, documents, date", "llama", _LLAMA3),
    ParityModel("hermes", "qwen3", "hermes_tools.jinja", "tools by macros", "qwen3", _QWEN3),
    ParityModel("thinking", "qwen3", "thinking.jinja", "thinking, tools", "qwen3", _QWEN3),
    ParityModel("inst", "llama2", "inst.jinja", "SentencePiece, role order, tools", "llama", _LLAMA2),
    ParityModel("parts", "llama2", "parts.jinja", "SentencePiece, content parts", "llama", _LLAMA2),
    ParityModel(
        "dialect", "llama3_1", DIALECT, "all of the template language", "llama", _LLAMA3, dialect=True
    ),
)
MODELS: Final[Mapping[str, ParityModel]] = {model.name: model for model in _ALL}
