"""Server-sent events, read incrementally (HTML standard, 9.2): chunk borders may fall anywhere."""

from typing import Final

__all__ = ["EventParser", "EventTooLargeError"]

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024


class EventTooLargeError(ValueError):
    """One event exceeds what is kept in memory."""


class EventParser:
    """`feed` bytes as they come; it returns the data of each event that they complete.

    Only `data` fields are kept, those of one event joined with line feeds. Bytes that are not UTF-8 are
    replaced. An event that the stream's end cuts off is never returned.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[str]:
        self._pending += chunk
        if len(self._pending) > MAX_PENDING_BYTES:
            raise EventTooLargeError(f"an event of more than {MAX_PENDING_BYTES} bytes")
        events = []
        # A carriage return at the very end may be half of CRLF: it waits for the next chunk.
        complete = self._pending.rstrip(b"\r")
        *lines, rest = complete.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._pending = rest + self._pending[len(complete) :]
        for line in lines:
            if line:
                self._take(line.decode("utf-8", "replace"))
            elif self._data:
                events.append("\n".join(self._data))
                self._data.clear()
        return events

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        if field == "data":
            self._data.append(value.removeprefix(" "))
