"""Where a model's tokenizer and chat template come from: a directory, or a Hugging Face hub id."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["DEFAULT_MODEL", "Model", "ModelError", "resolve"]

DEFAULT_MODEL: Final = Path(__file__).with_name("model")
DEFAULT_NAME: Final = "stack-model"

REQUIRED_FILES: Final = ("config.json", "tokenizer.json", "tokenizer_config.json")
HUB_ID: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# Everything that front ends and tokenext read; never weights.
HUB_FILES: Final = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")


class ModelError(ValueError):
    """A model that cannot be used; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    folder: Path


def resolve(source: str | None) -> Model:
    """The model of a directory or hub id; without one, the stack's own. Raises ModelError."""
    if source is None:
        return Model(DEFAULT_NAME, DEFAULT_MODEL)
    folder = Path(source).expanduser()
    if source and folder.is_dir():
        return Model(folder.resolve().name, _checked(folder.resolve()))
    if folder.exists() or not HUB_ID.fullmatch(source):
        raise ModelError(f"{source or repr(source)}: no such model directory")
    return Model(source, _checked(_download(source)))


def _checked(folder: Path) -> Path:
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder}: not a model directory, it lacks {', '.join(missing)}")
    return folder


def _download(hub_id: str) -> Path:
    # Imported here: it takes a second, and only hub ids need it.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{hub_id}: no such directory, and not to be had from the hub: {problem}") from None
