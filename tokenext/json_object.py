"""A request body as a JSON object whose values stay bytes until somebody needs them.

Values are slices of the body, so that a field can be read, replaced or removed without a megabyte of messages
being rebuilt. Where a name stands twice the last one counts, as in every Python server; Rust servers (serde)
answer 400 to such a body.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

__all__ = ["JsonObject", "NotAnObjectError", "join", "read"]

_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotAnObjectError(ValueError):
    """The bytes are no JSON object, or one nested too deeply to be read."""


@dataclass(frozen=True, slots=True)
class JsonObject:
    """`text` is the JSON as it came; `fields` are its top-level values as JSON."""

    text: bytes
    fields: Mapping[str, msgspec.Raw]


def read(text: bytes | msgspec.Raw) -> JsonObject:
    """Split a JSON object into its fields. Raises NotAnObjectError."""
    try:
        return JsonObject(bytes(text), _DECODER.decode(text))
    # msgspec's own error, invalid UTF-8 in a name, and nesting beyond its bound.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotAnObjectError("not a JSON object") from None


def join(fields: Mapping[str, msgspec.Raw | bytes]) -> bytes:
    """The JSON object of these fields, in their order."""
    parts: list[bytes | msgspec.Raw] = []
    for name, value in fields.items():
        parts += (b",", msgspec.json.encode(name), b":", value)
    return b"".join((b"{", *parts[1:], b"}"))
