"""JSON values into types, as lax as pydantic: "5" is a number, and so is 5.0."""

import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from extproc.verdict import JsonValue
from tokenext.render_api.errors import malformed

__all__ = ["convert", "integer"]

T = TypeVar("T", bound=msgspec.Struct)

_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_MISSING: Final = re.compile(r"missing required field `(\w+)`")
_PARTS: Final = re.compile(r"\w+")


def convert(given: Mapping[str, JsonValue], struct: type[T]) -> T:
    """Raises ApiError for the first value of another type, with its place as vLLM spells it."""
    try:
        return msgspec.convert(given, struct, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        parts = [] if place is None else _PARTS.findall(place[1])
        parts += _MISSING.findall(text)
        raise malformed("a field has another type than it may", ".".join(("body", *parts))) from None


_LONGEST_NUMBER: Final = 20  # digits


def integer(value: JsonValue) -> int | None:
    """As pydantic reads one: 1.0, true and "1" are 1. None for what is none."""
    if isinstance(value, str):
        fits = value.isascii() and value.isdecimal() and len(value) < _LONGEST_NUMBER
        return int(value) if fits else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) else None
