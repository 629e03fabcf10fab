"""The model a request body asks for, and the same body asking for another.

Only the one value is replaced: every other value keeps the bytes the client sent, so that no number changes
its spelling on the way. A repeated key counts with its last value, as in every JSON reader.
"""

from dataclasses import dataclass

import msgspec

__all__ = ["RequestBody", "read_request_body"]

_Fields = dict[str, msgspec.Raw]
_decoder = msgspec.json.Decoder(_Fields)


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A JSON object that asks for `model`; None: it names none, or something that is no text."""

    model: str | None
    _fields: _Fields

    def with_model(self, model: str) -> bytes:
        return msgspec.json.encode({**self._fields, "model": model})


def read_request_body(body: bytes) -> RequestBody | None:
    """None where the body is no JSON object."""
    try:
        fields = _decoder.decode(body)
        raw = fields.get("model")
        model = msgspec.json.decode(raw) if raw is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return RequestBody(model if isinstance(model, str) else None, fields)
