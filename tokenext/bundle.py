"""A bundle: a model directory made ahead of time, with a manifest that says what is in it and where from.

    bundle.json                              the manifest
    tokenizer.json                           the tokenizer as it is, for engines that read the file (Dynamo)
    tokenizer.transformers.json              what transformers makes of it, for engines that load it so (vLLM)
    chat_template.jinja                      the chat template, where the model has one
    additional_chat_templates/NAME.jinja     templates by other names

Whatever decides a token id is in these files, so a bundle that was changed by hand is refused, by file.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from extproc.settings_file import SettingsError
from tokenext.content_format import ContentFormat
from tokenext.model_files import ModelFiles
from tokenext.model_hints import Renderer

__all__ = ["MANIFEST", "Contents", "Manifest", "Origin", "TemplateEntry", "compose", "read_bundle"]

MANIFEST: Final = "bundle.json"
_FORMAT: Final = 1
_FILE: Final = "tokenizer.json"
_TRANSFORMERS: Final = "tokenizer.transformers.json"
# A template's name becomes a file's name, and comes from files that somebody else wrote.
_TEMPLATE_NAME: Final = re.compile(r"\w[\w.-]{0,99}")
_BUNDLED_FILE: Final = re.compile(
    r"tokenizer(\.transformers)?\.json|chat_template\.jinja|additional_chat_templates/\w[\w.-]{0,99}\.jinja"
)


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a bundle comes from: the files with their sha256, and the hub's id and commit if it has them.

    A directory's path is left out: it means nothing elsewhere, and the same files give the same bytes.
    """

    files: dict[str, str]
    hub: str | None = None
    revision: str | None = None


class TemplateEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`content_format` is read off the template: does it take content as a string or as parts?"""

    file: str
    content_format: ContentFormat


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the bundler knows. `versions` are those of what it was made with.

    `max_length` is the longest prompt of any engine, `max_model_len` vLLM's context; see ModelFiles.
    """

    origin: Origin
    versions: dict[str, str]
    special_tokens: dict[str, str] = {}
    chat_template_kwargs: dict[str, Any] = {}
    max_length: int | None = None
    max_model_len: int | None = None
    sampling_defaults: dict[str, Any] = {}
    model_type: str = ""
    renderer: Renderer = Renderer.CHAT_TEMPLATE


class Manifest(Contents, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The contents, the files by sha256, and a digest over everything else in it."""

    format: int
    digest: str
    files: dict[str, str]
    chat_templates: dict[str, TemplateEntry]


def compose(
    contents: Contents,
    *,
    tokenizer_json: bytes | None,
    transformers_json: bytes | None,
    templates: Mapping[str, str],
    formats: Mapping[str, ContentFormat],
) -> dict[str, bytes]:
    """The files of a bundle by their paths; the manifest is one of them. The same input gives the same bytes.

    There is one tokenizer at least; `formats` has an entry for each template. Raises ValueError for a
    template's name that is no file's name.
    """
    tokenizers = {_FILE: tokenizer_json, _TRANSFORMERS: transformers_json}
    files = {path: content for path, content in tokenizers.items() if content is not None}
    entries: dict[str, TemplateEntry] = {}
    for name in sorted(templates):
        path = _template_path(name)
        files[path] = templates[name].encode()
        entries[name] = TemplateEntry(path, formats[name])
    fields = {
        **msgspec.to_builtins(contents),
        "format": _FORMAT,
        "files": {path: _sha256(content) for path, content in sorted(files.items())},
        "chat_templates": msgspec.to_builtins(entries),
    }
    fields["digest"] = _digest(fields)
    files[MANIFEST] = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
    return files


def read_bundle(directory: Path) -> tuple[Manifest, ModelFiles] | None:
    """Read and verify a bundle; None where the directory is none. Raises SettingsError naming the file."""
    path = directory / MANIFEST
    text = _read(path)
    if text is None:
        return None
    manifest = _manifest(text, path)
    contents = {name: _verified(directory / name, expected) for name, expected in manifest.files.items()}
    try:
        files = ModelFiles(
            tokenizer_json=contents.get(_FILE) or contents[_TRANSFORMERS],
            transformers_json=contents.get(_TRANSFORMERS),
            without_file=_FILE not in contents,
            # `default` first of all, as ModelFiles has it.
            chat_templates={
                name: contents[entry.file].decode()
                for name, entry in sorted(
                    manifest.chat_templates.items(), key=lambda item: item[0] != "default"
                )
            },
            special_tokens=manifest.special_tokens,
            model_type=manifest.model_type,
            max_positions=manifest.max_length,
            renderer=manifest.renderer,
            # A bundle that is older has but the first.
            max_model_len=manifest.max_model_len or manifest.max_length,
            sampling_defaults=manifest.sampling_defaults,
        )
    except (KeyError, UnicodeDecodeError):
        raise SettingsError(str(path), "names a file that it does not list; bundle again") from None
    return manifest, files


def _template_path(name: str) -> str:
    if name == "default":
        return "chat_template.jinja"
    if not _TEMPLATE_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} cannot be a chat template's name: letters, digits, '.', '_' and '-'"
        )
    return f"additional_chat_templates/{name}.jinja"


def _manifest(text: bytes, path: Path) -> Manifest:
    changed = "was changed after it was made, or is no manifest of a bundle; bundle again"
    try:
        fields = orjson.loads(text)
        if isinstance(fields, dict) and fields.get("format") != _FORMAT:
            problem = f"has format {fields.get('format')}, this tokenext reads {_FORMAT}; bundle again"
            raise SettingsError(str(path), problem)
        manifest = msgspec.convert(fields, Manifest)
    except (orjson.JSONDecodeError, msgspec.ValidationError):
        raise SettingsError(str(path), changed) from None
    listed = all(_BUNDLED_FILE.fullmatch(name) for name in manifest.files)
    if not listed or _digest(fields) != manifest.digest:
        raise SettingsError(str(path), changed)
    return manifest


def _verified(path: Path, expected: str) -> bytes:
    content = _read(path)
    if content is None:
        raise SettingsError(str(path), f"is missing, but {MANIFEST} lists it; bundle again")
    if _sha256(content) != expected:
        raise SettingsError(str(path), f"was changed: it is not the file that {MANIFEST} lists; bundle again")
    return content


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None


def _sha256(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _digest(fields: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in fields.items() if name != "digest"}
    return _sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS))
