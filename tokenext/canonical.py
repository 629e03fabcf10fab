"""The canonical tokenizer of a model directory: the one its engine works with.

Engines load tokenizers through transformers, which rewrites some of them while it loads (facts: Llama 2's
normalizer, the gpt-4o class), so that tokenizer.json alone can give other ids. Beyond the standard library
only transformers is imported, and only by who asks for it: the seam runs in any environment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol

__all__ = [
    "Canonical",
    "CanonicalError",
    "Canonicalizer",
    "FakeCanonicalizer",
    "FileAsItIs",
    "ThroughTransformers",
    "transformers_version",
]


class CanonicalError(ValueError):
    """No tokenizer can be had from this directory; the message says why."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """`special_tokens` are those that the loader would show to templates; empty where it does not know."""

    tokenizer_json: bytes
    versions: Mapping[str, str]
    special_tokens: Mapping[str, str] = field(default_factory=dict)


class Canonicalizer(Protocol):
    @property
    def name(self) -> str:
        """A fixed word for the manifest."""
        ...

    def read(self, directory: Path) -> Canonical:
        """The tokenizer of a model directory, the same bytes every time. Raises CanonicalError."""
        ...


class FileAsItIs:
    name: Final = "tokenizer.json"

    def read(self, directory: Path) -> Canonical:
        path = directory / "tokenizer.json"
        try:
            return Canonical(path.read_bytes(), {})
        except OSError as error:
            raise CanonicalError(f"{path}: cannot be read: {error.strerror}") from None


class ThroughTransformers:
    """`AutoTokenizer(...).backend_tokenizer`, from local files only; a model's own code is never run."""

    name: Final = "transformers"

    def read(self, directory: Path) -> Canonical:
        # It takes seconds, and only bundling needs it.
        from transformers import AutoTokenizer, logging  # noqa: PLC0415  # an extra

        logging.set_verbosity_error()
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(directory), use_fast=True, local_files_only=True, trust_remote_code=False
            )
            text: str = tokenizer.backend_tokenizer.to_str()
        # For a bad directory transformers raises errors of every kind, its own and other libraries'.
        except Exception as error:  # noqa: BLE001
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CanonicalError(f"transformers cannot load the tokenizer of {directory}: {reason}") from None
        tokens = tokenizer.special_tokens_map
        return Canonical(
            text.encode(),
            {"transformers": version("transformers"), "tokenizers": version("tokenizers")},
            {name: str(token) for name, token in tokens.items() if not isinstance(token, list | tuple)},
        )


class FakeCanonicalizer:
    """Writes the file anew: the same tokenizer in other bytes, so that a test sees whose work it has."""

    name: Final = "fake"

    def read(self, directory: Path) -> Canonical:
        document = json.loads(FileAsItIs().read(directory).tokenizer_json)
        return Canonical(json.dumps(document, indent=1).encode(), {"fake": "1"})


def transformers_version() -> str | None:
    """The installed version of transformers, or None."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
