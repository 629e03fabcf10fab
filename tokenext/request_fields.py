"""Top-level fields of a request body, decoded one by one, only those that are asked for."""

from typing import Final, TypeVar

import msgspec
import orjson

from extproc.verdict import JsonValue
from tokenext.declined import Declined, SkipReason
from tokenext.json_numbers import read_numbers
from tokenext.json_object import JsonObject

__all__ = ["RequestFields", "is_unicode", "require"]

T = TypeVar("T")


def require(holds: bool) -> None:
    """Raises Declined for a body that is not of the shape that the engines take."""
    if not holds:
        raise Declined(SkipReason.BAD_REQUEST_SHAPE)


def is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which no tokenizer takes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class RequestFields:
    """The fields of a body that are not null: null means absent, as both engines read it where they allow it.

    `odd_numbers` becomes true when a decoded value has integers that engines read in two ways
    (json_numbers.py).
    """

    def __init__(self, body: JsonObject) -> None:
        self._fields: Final = {name: value for name, value in body.fields.items() if not _is_null(value)}
        self.odd_numbers = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._fields)

    def value(self, name: str) -> JsonValue:
        """The value, None where it is absent. Raises Declined for what no engine can read."""
        raw = self._fields.get(name)
        if raw is None:
            return None
        try:
            decoded, odd = read_numbers(memoryview(raw))
        except (
            orjson.JSONDecodeError
        ):  # lone surrogates, invalid UTF-8, numbers beyond a float's, deep nesting
            raise Declined(SkipReason.INVALID_JSON) from None
        self.odd_numbers = self.odd_numbers or odd
        return decoded

    def text(self, name: str) -> bytes:
        """The value as it stands in the body; empty where it is absent."""
        return bytes(self._fields.get(name, b""))

    def typed(self, name: str, expected: type, default: T) -> T:
        """The value, which must be exactly of this type. Raises Declined."""
        value = self.value(name)
        if value is None:
            return default
        require(type(value) is expected)
        return value  # type: ignore[return-value]  # of the type just checked


def _is_null(raw: msgspec.Raw) -> bool:
    value = memoryview(raw)
    return len(value) == len(b"null") and bytes(value) == b"null"
