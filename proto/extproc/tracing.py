"""Spans of an exchange: what is told of it when it is over, to whoever keeps traces.

Nothing here knows OpenTelemetry (otel.py does), and nothing is told while a request waits: a span's start and
end are facts that the exchange has kept, so tracing costs a request nothing but its last microseconds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct

__all__ = [
    "TRACEPARENT_HEADER",
    "Attribute",
    "RecordingTracing",
    "Stretch",
    "Tracing",
    "TracingSettings",
    "trace_parent",
]

TRACEPARENT_HEADER: Final = "traceparent"
# W3C Trace Context, 3.2: a later version may append fields, which whoever knows version 00 leaves alone.
_TRACEPARENT: Final = re.compile(r"((?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?")

Attribute = str | bool | int | float


class TracingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`endpoint` is an OpenTelemetry collector's OTLP over gRPC; https:// speaks TLS to it.

    `sample_ratio` is the share of requests that are traced where the client's traceparent, whose decision
    stands, does not say. What else there is to set (headers, certificates, resource attributes) is read from
    OpenTelemetry's own OTEL_* variables.
    """

    endpoint: Annotated[str, Meta(pattern=r"^https?://[^/\s]+/?$")]
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A named stretch of time, in seconds of the exchange's clock. Attributes hold nothing a client chose."""

    name: str
    began: float
    ended: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    failed: bool = False


class Tracing(Protocol):
    def traced(self, traceparent: str, whole: Stretch, parts: Sequence[Stretch] = ()) -> None:
        """Keep one exchange: `whole` as a span, child of `traceparent` unless that is "", and `parts` as its
        children. Must be quick, and never raises.
        """
        ...


class RecordingTracing:
    """Keeps what it is told: the fake of the seam."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Stretch, tuple[Stretch, ...]]] = []

    def traced(self, traceparent: str, whole: Stretch, parts: Sequence[Stretch] = ()) -> None:
        self.told.append((traceparent, whole, tuple(parts)))


def trace_parent(headers: Mapping[str, str]) -> str:
    """The request's traceparent where it has the form of one, else "": no client's words get further."""
    given = headers.get(TRACEPARENT_HEADER)
    if given is None:
        return ""
    match = _TRACEPARENT.fullmatch(given)
    return "" if match is None else match[1]
