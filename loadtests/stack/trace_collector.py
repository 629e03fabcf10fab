"""An OpenTelemetry collector in a thread, on loopback: keeps the spans it is sent, for tests and benches."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

__all__ = ["Collected", "Span", "serve_collector"]

KEPT: Final = 100_000  # beyond these spans are only counted
_STATUS_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Ids in hex; `parent` is "" for a root. Times in seconds of the time of day."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    began: float
    ended: float
    failed: bool
    attributes: dict[str, Any]


class Collected(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """What came in so far."""

    def __init__(self) -> None:
        self._lock: Final = Lock()
        self._spans: Final[list[Span]] = []
        self.count = 0

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the service's name
        del context
        with self._lock:
            for resource in request.resource_spans:
                service = _values(resource.resource.attributes).get("service.name", "")
                for scope in resource.scope_spans:
                    self.count += len(scope.spans)
                    self._spans.extend(
                        _span(service, each) for each in scope.spans[: KEPT - len(self._spans)]
                    )
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def wait_for(self, enough: Callable[[list[Span]], bool], *, deadline_seconds: float = 15.0) -> list[Span]:
        """Poll until `enough` holds. Raises TimeoutError."""
        ends = time.monotonic() + deadline_seconds
        while not enough(spans := self.spans()):
            if time.monotonic() > ends:
                raise TimeoutError(f"the collector has {len(spans)} spans: {sorted({s.name for s in spans})}")
            time.sleep(0.05)
        return spans


@contextmanager
def serve_collector() -> Iterator[tuple[str, Collected]]:
    """The endpoint's URL, and what comes in there."""
    collected = Collected()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collected, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"http://127.0.0.1:{port}", collected
        finally:
            server.stop(grace=None).wait()


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano / 1e9,
        ended=span.end_time_unix_nano / 1e9,
        failed=span.status.code == _STATUS_ERROR,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
