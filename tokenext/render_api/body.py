"""A body of the render API, read as far as its answer needs it."""

from typing import Final

import orjson

from extproc.verdict import JsonValue
from tokenext.json_object import JsonObject, NotAnObjectError, join, read
from tokenext.render_api.errors import ApiError, bad_request, malformed

__all__ = ["MESSAGES", "Body"]

MESSAGES: Final = "messages"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Body:
    """A body whose messages, which are nearly all of it, stay bytes: the API that renders them reads them."""

    def __init__(self, body: bytes) -> None:
        """Raises ApiError."""
        text = body.removeprefix(_BYTE_ORDER_MARK)
        try:
            self.raw: Final = read(text)
        except NotAnObjectError:
            raise _not_an_object(text) from None
        self.fields: Final[dict[str, JsonValue]] = {}
        for name, value in self.raw.fields.items():
            if name != MESSAGES:
                try:
                    self.fields[name] = orjson.loads(memoryview(value))
                except orjson.JSONDecodeError:  # a lone surrogate, or a number beyond a float's
                    raise malformed("a value is no JSON that can be read", f"body.{name}") from None

    def check_messages(self) -> None:
        """Raises ApiError where they are no list with something in it."""
        raw = self.raw.fields.get(MESSAGES)
        if raw is None:
            raise malformed("messages must be a list", "body.messages")
        text = bytes(raw).strip()
        if text == b"null":
            raise bad_request("messages must be a list")
        if not text.startswith(b"["):
            raise malformed("messages must be a list", "body.messages")
        if not text[1:-1].strip():
            raise bad_request("Cannot apply chat template to an empty conversation.")

    def with_values(self, **values: JsonValue) -> JsonObject:
        """The body with these fields; the very same where it has them as they are."""
        if all(name in self.fields and self.fields[name] == value for name, value in values.items()):
            return self.raw
        written = {name: orjson.dumps(value) for name, value in values.items()}
        return read(join({**self.raw.fields, **written}))


def _not_an_object(text: bytes) -> ApiError:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return malformed("the body is no JSON", f"body.{error.pos}" if text else "body")
    return malformed("the body is no JSON object")
