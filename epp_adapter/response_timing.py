"""How a response came: its size, when its first token came, and the gaps between the pieces of a stream.

Pure: the caller brings the clock. A piece costs one look at the clock, and only in a stream of events.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.events import Headers, ResponseStarted

__all__ = [
    "GAP_BOUNDS",
    "NOT_SEEN",
    "Gaps",
    "ResponseFacts",
    "ResponseTiming",
    "body_length",
    "is_event_stream",
]

# Seconds; the reference picker's buckets of inter-token latency (llm-d-router, pkg/epp/metrics).
GAP_BOUNDS: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0)
_EVENTS: Final = "text/event-stream"
_MAX_DIGITS: Final = 18
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Times between pieces of one stream: how many were at most each of GAP_BOUNDS and over the one before
    it, the last count being of those over all; and their sum in seconds.
    """

    counts: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """`streamed`: it is a stream of events. `body_bytes`: as the model server sent it; None where neither the
    body was seen nor its length told. `first_token_seconds` is since the request came; None where it was not
    seen, or no success. `gaps` are of a stream of which pieces were seen.
    """

    streamed: bool = False
    body_bytes: int | None = None
    first_token_seconds: float | None = None
    gaps: Gaps | None = None


NOT_SEEN: Final = ResponseFacts()


def is_event_stream(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith(_EVENTS)


def body_length(headers: Headers) -> int | None:
    """What content-length says; None where it says nothing, or no number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


class ResponseTiming:
    """Of one exchange, `opened` at that time of `clock`, in seconds.

    The first token of a stream is its first piece: model servers send the headers before it. A response that
    comes whole was computed when its headers came, so its body need not be seen.
    """

    __slots__ = ("_clock", "_counts", "_first", "_last", "_length", "_opened", "_seconds", "_size",
                 "_started", "_streamed", "_succeeded")  # fmt: skip

    def __init__(self, opened: float, clock: Callable[[], float]) -> None:
        self._opened = opened
        self._clock = clock
        self._started = False
        self._streamed = False
        self._succeeded = False
        self._length: int | None = None
        self._size: int | None = None
        self._first: float | None = None
        self._last = 0.0
        self._counts: list[int] | None = None
        self._seconds = 0.0

    def start(self, started: ResponseStarted) -> None:
        self._started = True
        self._succeeded = started.status in _SUCCESS
        self._streamed = is_event_stream(started.headers)
        self._length = 0 if started.end_of_stream else body_length(started.headers)
        if self._length and not self._streamed:
            self._first = self._clock()

    def piece(self, body: bytes) -> None:
        """Of the body, in order. An empty one marks an end, and is no token."""
        if not body:
            return
        self._size = (self._size or 0) + len(body)
        if self._streamed:
            self._piece_of_stream(self._clock())
        elif self._first is None:
            self._first = self._clock()

    def _piece_of_stream(self, now: float) -> None:
        if self._first is None:
            self._first = now
        else:
            if self._counts is None:
                self._counts = [0] * (len(GAP_BOUNDS) + 1)
            gap = now - self._last
            self._counts[bisect_left(GAP_BOUNDS, gap)] += 1
            self._seconds += gap
        self._last = now

    def facts(self) -> ResponseFacts:
        """So far."""
        if not self._started:
            return NOT_SEEN
        first = self._first if self._succeeded else None
        return ResponseFacts(
            self._streamed,
            self._length if self._size is None else self._size,
            None if first is None else first - self._opened,
            None if self._counts is None else Gaps(tuple(self._counts), self._seconds),
        )
