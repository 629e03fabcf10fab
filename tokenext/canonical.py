"""The tokenizer that transformers makes of a model directory: the one that vLLM and its like work with.

transformers rewrites some tokenizers while it loads them (Llama 2's normalizer, the gpt-4o class), so that
tokenizer.json alone gives other ids. NVIDIA Dynamo's frontend is another matter: it reads the file.

Beyond the standard library only transformers is imported, and only by who asks for it: the seam runs in any
environment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

__all__ = [
    "Canonical",
    "CanonicalError",
    "Canonicalizer",
    "FakeCanonicalizer",
    "ThroughTransformers",
    "transformers_version",
]


class CanonicalError(ValueError):
    """The directory has no tokenizer that can be loaded; the message says why."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """`special_tokens` are those that the loader would show to templates; empty where it does not know."""

    tokenizer_json: bytes
    versions: Mapping[str, str]
    special_tokens: Mapping[str, str] = field(default_factory=dict)


class Canonicalizer(Protocol):
    def read(self, directory: Path) -> Canonical:
        """The tokenizer of a model directory, the same bytes every time. Raises CanonicalError."""
        ...


class ThroughTransformers:
    """`AutoTokenizer(...).backend_tokenizer`, from local files only; a model's own code is never run."""

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

    def read(self, directory: Path) -> Canonical:
        document = json.loads((directory / "tokenizer.json").read_bytes())
        return Canonical(json.dumps(document, indent=1).encode(), {"fake": "1"})


def transformers_version() -> str | None:
    """The installed version of transformers, or None."""
    try:
        return version("transformers")
    except PackageNotFoundError:
        return None
