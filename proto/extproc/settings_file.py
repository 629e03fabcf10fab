"""Settings: decoded once, strictly, into frozen values; every error names the file, the key and the rule."""

from pathlib import Path
from typing import TypeVar

import msgspec

__all__ = ["SettingsError", "decode", "load"]

T = TypeVar("T")


class SettingsError(ValueError):
    """A settings file that cannot be used. The message is for the operator, and complete."""

    def __init__(self, source: str, problem: str, key: str | None = None) -> None:
        super().__init__(f"{source}: {key}: {problem}" if key else f"{source}: {problem}")
        self.source = source
        self.key = key
        self.problem = problem


def decode(text: bytes, settings: type[T], *, source: str) -> T:
    """Decode YAML (or JSON, its subset) into `settings`, a msgspec Struct with forbid_unknown_fields."""
    try:
        return msgspec.yaml.decode(text, type=settings)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        key = path.rstrip("`").removeprefix("$.") if path else None
        raise SettingsError(source, problem, key) from None
    except msgspec.DecodeError as error:
        raise SettingsError(source, f"is not YAML: {error}") from None


def load(path: Path, settings: type[T]) -> T:
    """Read and decode a settings file. The path as given is what errors name."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None
    return decode(text, settings, source=str(path))
