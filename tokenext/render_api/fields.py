"""A request body by its fields, each of which stays JSON until somebody needs it (tokenext.json_object).

What Python's json reads and strict JSON has not (NaN, numbers beyond a float's, lone surrogates) is read as
vLLM reads it, in short bodies: it stands in fields that nobody looks at, more often than not.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from extproc.verdict import JsonValue
from tokenext.continued_body import go_on
from tokenext.json_numbers import read_numbers
from tokenext.json_object import JsonObject, NotAnObjectError, join, read
from tokenext.render_api.errors import UNREADABLE, ApiError, bad_request, malformed
from tokenext.turns import Remembered

__all__ = ["Fields", "read_fields"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LENIENT_BYTES: Final = 256 * 1024  # Python's json holds the event loop for some milliseconds for these
_NULL: Final = b"null"
_OPENING_BYTES: Final = 16
_TEXTS: Final = frozenset({"messages", "prompt", "tools", "documents", "chat_template_kwargs"})
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_EMPTY_LIST: Final = re.compile(rb"\[[ \t\r\n]*\]")


class Fields:
    """The fields of one body. None of its texts is copied to be looked at."""

    def __init__(self, body: JsonObject, *, strict: bool = True) -> None:
        """`strict` False: the text is no strict JSON, but what Python made of one that is not."""
        self._body: Final = body
        self._strict: Final = strict

    def __contains__(self, name: str) -> bool:
        return name in self._body.fields

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._body.fields)

    def is_given(self, name: str) -> bool:
        """Whether it is there, and not null."""
        return self.opening(name) not in (b"", _NULL)

    def opening(self, name: str) -> bytes:
        """The beginning of the value as JSON, and all of a short one; b"" where it is absent."""
        raw = self._body.fields.get(name)
        return b"" if raw is None else bytes(memoryview(raw)[:_OPENING_BYTES])

    def is_empty_list(self, name: str) -> bool:
        raw = self._body.fields.get(name)
        return raw is not None and _EMPTY_LIST.fullmatch(memoryview(raw)) is not None

    def matches(self, name: str, pattern: re.Pattern[bytes]) -> bool:
        """Whether something like the pattern stands anywhere in the value."""
        raw = self._body.fields.get(name)
        return raw is not None and pattern.search(memoryview(raw)) is not None

    def text(self, name: str) -> str:
        """A string's value; "" for anything else, such as half of a surrogate pair. Raises ApiError."""
        value = self.value(name) if self.opening(name).startswith(b'"') else None
        return value if isinstance(value, str) and _HALF_PAIR.search(value) is None else ""

    def value(self, name: str) -> JsonValue:
        """The value, None where it is absent. Raises ApiError."""
        raw = self._body.fields.get(name)
        if raw is None:
            return None
        try:
            return read_numbers(memoryview(raw))[0]
        except orjson.JSONDecodeError:
            return _lenient(bytes(raw))

    def with_values(
        self, replaced: Mapping[str, JsonValue], without: frozenset[str] = frozenset()
    ) -> JsonObject:
        """The body with other values for some fields, and without others; the very same where it has all."""
        fields = self._body.fields
        if self._strict and not replaced and without.isdisjoint(fields):
            return self._body
        kept: dict[str, msgspec.Raw | bytes] = {
            name: raw for name, raw in fields.items() if name not in without
        }
        if not self._strict:
            # Nobody but Python reads them, and what they say was checked.
            kept = {name: raw for name, raw in kept.items() if name in _TEXTS or _is_strict(raw)}
        kept |= {name: json.dumps(value).encode() for name, value in replaced.items()}
        text = join(kept)
        if not self._strict:
            # Half of a surrogate pair may stand where no prompt shows it.
            return JsonObject(text, {name: msgspec.Raw(value) for name, value in kept.items()})
        try:
            return read(text)
        except NotAnObjectError:
            raise bad_request("a text has half of a surrogate pair") from None


def read_fields(body: bytes, conversations: Remembered | None = None) -> Fields:
    """Of messages that `conversations` know only what is new is looked at. Raises ApiError."""
    text = body.removeprefix(_BYTE_ORDER_MARK)
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            raise ApiError(UNREADABLE) from None
    continued = None if conversations is None else go_on(text, conversations)
    if continued is not None:
        return Fields(continued)
    try:
        return Fields(read(text))
    except NotAnObjectError:
        value = _lenient(text)
    if not isinstance(value, dict):
        raise malformed("the body is no JSON object")
    fields = {name: msgspec.Raw(json.dumps(each).encode()) for name, each in value.items()}
    return Fields(JsonObject(b"", fields), strict=False)


def _is_strict(raw: msgspec.Raw | bytes) -> bool:
    try:
        orjson.loads(memoryview(raw))
    except orjson.JSONDecodeError:
        return False
    return True


def _lenient(text: bytes) -> JsonValue:
    if not text:
        raise malformed("the request has no body")
    if len(text) > _LENIENT_BYTES:
        raise malformed("the body is no JSON")
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError as error:
        raise malformed("the body is no JSON", f"body.{error.pos}") from None
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        raise ApiError(UNREADABLE) from None
    return value
