"""Traces by OpenTelemetry, sent over OTLP/gRPC. The only module that imports it, so that only those pay for
it who turn tracing on (the extra `tracing`).

Spans are made when an exchange is over, with the times it kept: a span that is not sampled costs its request
nothing, and one that is, nothing while it waits. They wait for the collector in a queue of 2,048; what does
not fit, or no collector takes, is lost and counted.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.tracing import TRACEPARENT_HEADER, Stretch, TracingSettings

__all__ = ["OtelTracing", "open_tracing"]

# One export, retries included; then the next batch has its turn.
_EXPORT_SECONDS: Final = 3.0
# How long the end of a process waits for what is still queued.
_FLUSH_SECONDS: Final = 5.0
_NANOSECONDS: Final = 1e9
_UNNAMED: Final = "unknown_service"  # what the SDK calls a service that OTEL_SERVICE_NAME does not name


class OtelTracing:
    """Tracing (tracing.py) by a tracer. `clock` is the exchanges' own, `now_ns` the time of day."""

    def __init__(
        self, tracer: trace.Tracer, *, clock: Callable[[], float], now_ns: Callable[[], int]
    ) -> None:
        self._tracer: Final = tracer
        self._clock: Final = clock
        self._now_ns: Final = now_ns
        self._propagator: Final = TraceContextTextMapPropagator()

    def traced(self, traceparent: str, whole: Stretch, parts: Sequence[Stretch] = ()) -> None:
        if traceparent and not int(traceparent[-2:], 16) & trace.TraceFlags.SAMPLED:
            return  # as the sampler would decide, in a twentieth of the time
        parent = self._propagator.extract({TRACEPARENT_HEADER: traceparent}) if traceparent else None
        # Read anew for each: whoever sets the time of day does not set the clock.
        offset = self._now_ns() - int(self._clock() * _NANOSECONDS)
        span = self._tracer.start_span(
            whole.name,
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes=whole.attributes,
            start_time=_nanoseconds(whole.began, offset),
        )
        if not span.is_recording():
            return
        if whole.failed:
            span.set_status(trace.StatusCode.ERROR)
        within = trace.set_span_in_context(span, parent)
        for part in parts:
            child = self._tracer.start_span(
                part.name,
                context=within,
                attributes=part.attributes,
                start_time=_nanoseconds(part.began, offset),
            )
            if part.failed:
                child.set_status(trace.StatusCode.ERROR)
            child.end(_nanoseconds(part.ended, offset))
        span.end(_nanoseconds(whole.ended, offset))


def _nanoseconds(seconds: float, offset: int) -> int:
    return int(seconds * _NANOSECONDS) + offset


@contextmanager
def open_tracing(
    settings: TracingSettings,
    *,
    service: str,
    version: str,
    metric_prefix: str,
    registry: CollectorRegistry,
    clock: Callable[[], float],
    now_ns: Callable[[], int],
) -> Iterator[OtelTracing]:
    """Trace until the block is left, which waits a few seconds for what is still to be sent."""
    exporter = _CountingExporter(
        metric_prefix, OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_SECONDS)
    )
    registry.register(exporter)
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        resource=_resource(service, version),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OtelTracing(provider.get_tracer(service, version), clock=clock, now_ns=now_ns)
    finally:
        flush = Thread(target=provider.shutdown, name="flush-traces", daemon=True)
        flush.start()
        flush.join(_FLUSH_SECONDS)


def _resource(service: str, version: str) -> Resource:
    found = Resource.create()
    ours = {SERVICE_VERSION: version}
    if str(found.attributes.get(SERVICE_NAME, _UNNAMED)).startswith(_UNNAMED):
        ours[SERVICE_NAME] = service
    return found.merge(Resource(ours))


class _CountingExporter(SpanExporter, Collector):
    """Hands spans on, and counts what became of them: `<prefix>_trace_spans_total`."""

    def __init__(self, prefix: str, exporter: SpanExporter) -> None:
        self._prefix: Final = prefix
        self._exporter: Final = exporter
        self._sent = 0
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self._sent += len(spans)
            else:
                self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def collect(self) -> Iterator[Metric]:
        spans = CounterMetricFamily(
            f"{self._prefix}_trace_spans",
            "Spans by whether the collector took them.",
            labels=["outcome"],
        )
        spans.add_metric(["sent"], self._sent)
        spans.add_metric(["lost"], self._lost)
        yield spans
