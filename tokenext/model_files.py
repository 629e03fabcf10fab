"""Reads a model directory as Hugging Face lays it out: tokenizer, chat templates, special tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from extproc.settings_file import SettingsError
from extproc.verdict import JsonValue
from tokenext.generation import sampling_defaults
from tokenext.model_hints import Renderer, context_length, max_model_len, renderer

__all__ = ["FILE_PATTERNS", "ModelFiles", "read_model", "read_template"]

# Everything that is looked at here; no weights.
FILE_PATTERNS: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "config.json",
    "generation_config.json",
    # Not read: where they are, vLLM does not use tokenizer.json (model_hints.py).
    "tekken.json",
    "tokenizer.model.v*",
)
_SPECIAL_TOKENS: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What decides a model's ids.

    `chat_templates` by name, `default` first of all; empty where the model has none. `model_type` and
    `max_positions` are config.json's, for information, empty or None where it does not say. `renderer` is
    what engines make this model's prompts with. `max_model_len` is the context by vLLM's reading, in tokens,
    and `sampling_defaults` are generation_config.json's; both decide no ids.

    `tokenizer_json` is the file as it is, `transformers_json` the tokenizer that transformers makes of the
    directory, known of bundles only. A model `without_file` has but the second, in both places.
    """

    tokenizer_json: bytes
    chat_templates: Mapping[str, str]
    special_tokens: Mapping[str, str]
    model_type: str = ""
    max_positions: int | None = None
    renderer: Renderer = Renderer.CHAT_TEMPLATE
    transformers_json: bytes | None = None
    without_file: bool = False
    max_model_len: int | None = None
    sampling_defaults: Mapping[str, JsonValue] = field(default_factory=dict)


def read_model(
    directory: Path, *, chat_template: Path | None = None, tokenizer_json: bytes | None = None
) -> ModelFiles:
    """Read a model directory. `chat_template` replaces its templates, `tokenizer_json` its tokenizer.

    Raises SettingsError.
    """
    tokenizer_path = directory / "tokenizer.json"
    if tokenizer_json is None:
        tokenizer_json = _read(tokenizer_path)
    if tokenizer_json is None:
        raise SettingsError(str(tokenizer_path), "is missing; a model directory needs it")
    tokenizer_config = _read_object(directory / "tokenizer_config.json")
    config = _read_object(directory / "config.json")
    model_type = str(config.get("model_type") or "")
    return ModelFiles(
        tokenizer_json=tokenizer_json,
        chat_templates=_templates(directory, tokenizer_config, chat_template),
        special_tokens=_special_tokens(tokenizer_config),
        model_type=model_type,
        max_positions=context_length(config),
        renderer=renderer(model_type, [path.name for path in directory.iterdir()]),
        max_model_len=max_model_len(config),
        sampling_defaults=_sampling_defaults(directory / "generation_config.json"),
    )


def read_template(path: Path) -> dict[str, str]:
    """A chat template of the operator's, in the place of a model's own. Raises SettingsError."""
    source = _read_text(path)
    if source is None:
        raise SettingsError(str(path), "is missing; it is set as a chat template")
    return {"default": source}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None


def _read_text(path: Path) -> str | None:
    content = _read(path)
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise SettingsError(str(path), "is not UTF-8 text") from None


def _read_object(path: Path) -> dict[str, JsonValue]:
    content = _read(path)
    if content is None:
        return {}
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise SettingsError(str(path), f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(str(path), "must hold a JSON object")
    return value


def _sampling_defaults(path: Path) -> dict[str, JsonValue]:
    try:
        return {**sampling_defaults(_read_object(path))}
    except SettingsError:  # vLLM goes on without it, too
        return {}


def _templates(
    directory: Path, tokenizer_config: Mapping[str, JsonValue], override: Path | None
) -> dict[str, str]:
    """In the order of transformers: files of their own win over tokenizer_config.json."""
    if override is not None:
        return read_template(override)
    source = _read_text(directory / "chat_template.jinja")
    if source is not None:
        extra = sorted((directory / "additional_chat_templates").glob("*.jinja"))
        return {"default": source, **{path.stem: _read_text(path) or "" for path in extra}}
    legacy = directory / "chat_template.json"
    if (content := _read_object(legacy)).get("chat_template") is not None:
        return _named(content["chat_template"], legacy)
    return _named(tokenizer_config.get("chat_template"), directory / "tokenizer_config.json")


def _named(value: JsonValue, path: Path) -> dict[str, str]:
    """One template as a string, or several as a list of {name, template} or as an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        pairs = [(item.get("name"), item.get("template")) for item in value if isinstance(item, dict)]
        complete = len(pairs) == len(value)
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
        complete = isinstance(value, dict)
    named = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if not complete or len(named) != len(pairs):
        raise SettingsError(str(path), "must be a template, or several as {name, template}", "chat_template")
    return named


def _special_tokens(tokenizer_config: Mapping[str, JsonValue]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name in _SPECIAL_TOKENS:
        value = tokenizer_config.get(name)
        if isinstance(value, dict):  # an AddedToken as an object
            value = value.get("content")
        if isinstance(value, str):
            tokens[name] = value
    return tokens
