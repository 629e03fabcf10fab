"""What a response body says of itself, read and changed as it passes: the model's name, and the tokens used.

The body comes in pieces of any size: one JSON document, or server-sent events. Nothing is held back but a
tail that may be the beginning of the model's name.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = ["ModelNameRestorer", "Usage", "UsageReader"]

_KEY: Final = b'"model"'
_QUOTE: Final = b'"'
_SPACE: Final = b" \t\r\n"
_MAX_SPACE: Final = 16  # between key, colon and value; bounds what is held back
MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
_DATA: Final = b"data:"
_USAGE: Final = b'"usage"'


class ModelNameRestorer:
    """Puts the name the client asked for in the place of the one the model server was asked for.

    Wherever `"model": "<served>"` stands outside of a text it is replaced. Inside of a JSON text its quotes
    would be escaped, so what a model generates is never touched.
    """

    def __init__(self, served: str, asked: str) -> None:
        # JSON writers differ in whether they escape what is not ASCII.
        self._served = tuple({_json(served, ascii_only=True), _json(served, ascii_only=False)})
        self._asked = _json(asked, ascii_only=False)
        self._pattern = re.compile(
            b"(%b[%b]{0,%d}:[%b]{0,%d})(?:%b)"
            % (_KEY, _SPACE, _MAX_SPACE, _SPACE, _MAX_SPACE, b"|".join(map(re.escape, self._served)))
        )
        self._longest = len(_KEY) + 1 + 2 * _MAX_SPACE + max(map(len, self._served))
        self._held = b""

    def feed(self, piece: bytes, *, end: bool) -> bytes:
        """What can go on now. At the end nothing stays."""
        body = self._held + piece
        passed: list[bytes] = []
        start = 0
        for match in self._pattern.finditer(body):
            passed += (body[start : match.end(1)], self._asked)
            start = match.end()
        hold = len(body) if end else self._beginning(body, start)
        self._held = body[hold:]
        return b"".join((*passed, body[start:hold]))

    def _beginning(self, body: bytes, start: int) -> int:
        """Where the first match begins that the next piece may complete; the end of the body if none does."""
        at = body.find(_QUOTE, max(start, len(body) - self._longest))
        while at >= 0 and not self._may_begin(body[at:]):
            at = body.find(_QUOTE, at + 1)
        return len(body) if at < 0 else at

    def _may_begin(self, rest: bytes) -> bool:
        if not rest.startswith(_KEY):
            return _KEY.startswith(rest)
        colon, _, value = rest[len(_KEY) :].partition(b":")
        if colon.strip(_SPACE):
            return False
        value = value.lstrip(_SPACE)
        return any(name.startswith(value) for name in self._served)


def _json(text: str, *, ascii_only: bool) -> bytes:
    return json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class Usage:
    """The model server's own count (OpenAI's `usage`). `cached_tokens` is None where it does not tell."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None


class UsageReader:
    """Reads the usage of a response as its pieces pass; `usage` is the last one seen.

    Of events only those that speak of usage are parsed. A document, or one event, of more than
    MAX_DOCUMENT_BYTES is not read.
    """

    def __init__(self, *, events: bool) -> None:
        self.usage: Usage | None = None
        self._events = events
        self._kept = bytearray()
        self._skipping = False

    def feed(self, piece: bytes, *, end: bool) -> None:
        if self._events:
            self._feed_events(piece)
            if end:
                self._read_line(bytes(self._kept))
            return
        if not self._skipping:
            self._keep(piece)
        if end and not self._skipping:
            self._read_document(bytes(self._kept))

    def _feed_events(self, piece: bytes) -> None:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if not self._skipping:
                self._read_line(bytes(self._kept) + line if self._kept else line)
            self._kept.clear()
            self._skipping = False
        if not self._skipping:
            self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        if len(self._kept) + len(piece) > MAX_DOCUMENT_BYTES:
            self._kept.clear()
            self._skipping = True
        else:
            self._kept += piece

    def _read_line(self, line: bytes) -> None:
        if line.startswith(_DATA):
            self._read_document(line[len(_DATA) :])

    def _read_document(self, text: bytes) -> None:
        if _USAGE not in text:
            return
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        usage = document.get("usage") if isinstance(document, dict) else None
        if isinstance(usage, dict):
            details = usage.get("prompt_tokens_details")
            self.usage = Usage(
                prompt_tokens=_count(usage.get("prompt_tokens")) or 0,
                completion_tokens=_count(usage.get("completion_tokens")) or 0,
                cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
            )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
