"""Makes a bundle of a model: finds it, reads it, checks that it works, writes it in one step."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from extproc.verdict import JsonValue
from tokenext.bundle import MANIFEST, Contents, Manifest, Origin, compose, read_bundle
from tokenext.canonical import Canonical, CanonicalError, Canonicalizer
from tokenext.chat_template import ChatTemplate, TemplateSourceError
from tokenext.content_format import ContentFormat
from tokenext.engines.huggingface import HuggingFaceEngine, TokenizerFileError
from tokenext.hub import Pinned, locate_pinned
from tokenext.model_files import FILE_PATTERNS, ModelFiles, read_model

__all__ = ["BundleOptions", "Bundled", "make_bundle"]

# What transformers reads for a tokenizer besides what we do; no weights.
_PATTERNS: Final = (
    *FILE_PATTERNS,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What the operator adds to the model's own files. `max_length` is in tokens."""

    chat_template: Path | None = None
    chat_template_kwargs: Mapping[str, JsonValue] = field(default_factory=dict)
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Bundled:
    """`differing` names the special tokens that the loader and tokenizer_config.json do not agree on."""

    manifest: Manifest
    differing: tuple[str, ...]


def make_bundle(
    source: str, output: Path, canonicalizer: Canonicalizer | None, options: BundleOptions
) -> Bundled:
    """Bundle a directory or hub id into `output`, which is replaced if it is a bundle already.

    Without a canonicalizer there is only the tokenizer.json that the model has. Raises SettingsError;
    `output` is then as it was.
    """
    target = output.resolve()
    _check_target(target, output)
    found = locate_pinned(source, patterns=_PATTERNS, source="SOURCE", key=None)
    if (found.directory / MANIFEST).exists():
        raise SettingsError(source, "is a bundle already; bundle the model that it was made of")
    try:
        canonical = None if canonicalizer is None else canonicalizer.read(found.directory)
    except CanonicalError as error:
        raise SettingsError(source, str(error)) from None
    transformers_json = None if canonical is None else canonical.tokenizer_json
    # A model may have no tokenizer.json: then transformers makes one of other files.
    has_file = transformers_json is None or (found.directory / "tokenizer.json").exists()
    files = read_model(
        found.directory,
        chat_template=options.chat_template,
        tokenizer_json=None if has_file else transformers_json,
    )
    _check_tokenizer(files.tokenizer_json, found.directory / "tokenizer.json")
    if transformers_json is not None:
        _check_tokenizer(transformers_json, found.directory)
    contents = Contents(
        origin=_origin(found),
        versions={"tokenext-chain": version("tokenext-chain"), **(canonical.versions if canonical else {})},
        special_tokens=dict(files.special_tokens),
        chat_template_kwargs=dict(options.chat_template_kwargs),
        max_length=options.max_length or files.max_positions,
        max_model_len=options.max_length or files.max_model_len,
        sampling_defaults=dict(files.sampling_defaults),
        model_type=files.model_type,
        renderer=files.renderer,
    )
    try:
        parts = compose(
            contents,
            tokenizer_json=files.tokenizer_json if has_file else None,
            transformers_json=transformers_json,
            templates=files.chat_templates,
            formats=_formats(files, source),
        )
    except ValueError as error:
        raise SettingsError(source, str(error)) from None
    manifest = _write(parts, target)
    return Bundled(manifest, () if canonical is None else _differing(files, canonical))


def _check_tokenizer(tokenizer_json: bytes, named: Path) -> None:
    try:
        HuggingFaceEngine(tokenizer_json)
    except TokenizerFileError as error:
        raise SettingsError(str(named), f"is no usable tokenizer: {error}") from None


def _check_target(target: Path, named: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise SettingsError(str(named), "is a file; a bundle is a directory")
    if any(target.iterdir()) and not (target / MANIFEST).exists():
        raise SettingsError(str(named), "is neither empty nor a bundle, and is left as it is")


def _formats(files: ModelFiles, source: str) -> dict[str, ContentFormat]:
    formats = {}
    for name, text in files.chat_templates.items():
        try:
            # Nothing is rendered here, so the clock shows nothing.
            formats[name] = ChatTemplate(text, now=lambda: datetime.now(UTC)).content_format
        except TemplateSourceError as error:
            raise SettingsError(source, f"its chat template {name!r} cannot be compiled: {error}") from None
    return formats


def _origin(found: Pinned) -> Origin:
    files = sorted(
        {path for pattern in _PATTERNS for path in found.directory.glob(pattern) if path.is_file()}
    )
    return Origin(
        files={
            path.relative_to(found.directory).as_posix(): f"sha256:{sha256(path.read_bytes()).hexdigest()}"
            for path in files
        },
        hub=found.repository,
        revision=found.revision,
    )


def _differing(files: ModelFiles, canonical: Canonical) -> tuple[str, ...]:
    names = files.special_tokens.keys() | canonical.special_tokens.keys()
    return tuple(
        sorted(name for name in names if files.special_tokens.get(name) != canonical.special_tokens.get(name))
    )


def _write(parts: Mapping[str, bytes], target: Path) -> Manifest:
    """Write beside the target, read back, and put it in its place: a reader sees the old or the new one."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            draft, replaced = scratch / "new", scratch / "old"
            for name, content in parts.items():
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            written = read_bundle(draft)
            assert written is not None
            if target.exists():
                target.replace(replaced)
            draft.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise SettingsError(str(target), f"cannot be written: {error.strerror}") from None
    return written[0]
