"""Writes JSON as clients spell it: compact or spaced, escaped or not, with what no serializer would write."""

import json
import random
from dataclasses import dataclass
from typing import Any

__all__ = ["Raw", "Spelling", "write"]


@dataclass(frozen=True, slots=True)
class Raw:
    """Stands in a value for JSON text that is written as it is: `1e3`, `-0`, a number of 30 digits."""

    text: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """`ascii_only` escapes everything else, as Python's json module does unless told otherwise."""

    comma: str = ", "
    colon: str = ": "
    ascii_only: bool = False

    @classmethod
    def drawn(cls, rng: random.Random) -> "Spelling":
        comma, colon = rng.choice(((", ", ": "), (",", ":"), (",\n  ", ": "), (" ,", " : ")))
        return cls(comma, colon, ascii_only=rng.random() < 0.5)


def write(value: Any, spelling: Spelling) -> str:
    """JSON text. Lone surrogates, which UTF-8 cannot carry, are always escaped."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, str):
        return _string(value, spelling)
    if isinstance(value, dict):
        items = (
            f"{_string(key, spelling)}{spelling.colon}{write(item, spelling)}" for key, item in value.items()
        )
        return "{" + spelling.comma.join(items) + "}"
    if isinstance(value, list):
        return "[" + spelling.comma.join(write(item, spelling) for item in value) + "]"
    return json.dumps(value)


def _string(value: str, spelling: Spelling) -> str:
    lone = any("\ud800" <= character <= "\udfff" for character in value)
    return json.dumps(value, ensure_ascii=spelling.ascii_only or lone)
