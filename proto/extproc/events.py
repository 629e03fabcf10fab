"""What a Session reports: one frozen value per thing an exchange has to know."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar, overload

__all__ = [
    "BodyMode",
    "Event",
    "Headers",
    "Metadata",
    "RequestReady",
    "ResponseChunk",
    "ResponseEvent",
    "ResponseStarted",
    "ResponseTrailers",
    "StaticMetadata",
    "Termination",
]

T = TypeVar("T")


class BodyMode(Enum):
    """Body send modes of Envoy's ProcessingMode that the kernel serves."""

    NONE = "NONE"
    STREAMED = "STREAMED"
    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


class Termination(Enum):
    """How a stream ended."""

    ENDED = "ended"  # Envoy closed or reset it while nothing was asked of us: the exchange is over
    CANCELLED = "cancelled"  # reset while we were at work: client gone, message timeout, or drain
    REJECTED = "rejected"  # we answered instead of the model server
    FAILED = "failed"  # the peer broke the protocol


class Headers(Mapping[str, str]):
    """HTTP headers by lower-case name; a repeated header's values are joined with commas (RFC 9110, 5.3).

    `lines` is how many there were before that, pseudo-headers among them; None: as many as there are names.
    """

    __slots__ = ("_values", "lines")

    def __init__(self, values: Mapping[str, str], lines: int | None = None) -> None:
        self._values = values
        self.lines = len(values) if lines is None else lines

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    # Mapping's own versions of these two ask __getitem__ and catch KeyError; a request has a dozen of them.
    def __contains__(self, name: object) -> bool:
        return name in self._values

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: object = None) -> object:
        return self._values.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def path(self) -> str:
        """The request path without its query."""
        return self._values.get(":path", "").partition("?")[0]

    @property
    def method(self) -> str:
        return self._values.get(":method", "")


class Metadata(Protocol):
    """Envoy's dynamic metadata, as far as the filter forwards it (`forwarding_namespaces`)."""

    def get(self, namespace: str, key: str) -> object | None:
        """The value as JSON types (None, bool, float, str, list, dict), or None where it is absent."""
        ...


@dataclass(frozen=True, slots=True)
class StaticMetadata:
    """Metadata from plain values: the fake of the seam above, and the empty metadata."""

    values: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def get(self, namespace: str, key: str) -> object | None:
        return self.values.get(namespace, {}).get(key)


@dataclass(frozen=True, slots=True)
class RequestReady:
    """All that will be known of a request before it must be decided.

    `body` is None where no body was seen: mode NONE, a decision at the headers, or `oversize`. A request
    without a body that was seen to have none has b"".
    `body_replaceable` tells whether a Verdict may carry another body; the Session refuses it otherwise.
    `headers_mutable` is False where the headers have left already (STREAMED, decided at the end).
    `response_body` is how the response body will be seen; NONE: not at all.
    """

    headers: Headers
    body: bytes | None
    metadata: Metadata
    oversize: bool = False
    body_replaceable: bool = False
    headers_mutable: bool = True
    response_body: BodyMode = BodyMode.NONE


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """Response headers. `status` is 0 where `:status` is missing or no number."""

    status: int
    headers: Headers
    metadata: Metadata
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class ResponseChunk:
    body: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class ResponseTrailers:
    """The response is over; its trailers are not read."""


ResponseEvent = ResponseStarted | ResponseChunk | ResponseTrailers
Event = RequestReady | ResponseEvent
