"""Traces: what is a traceparent, and that every way to keep a span keeps the same."""

import time
from contextlib import contextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

from extproc.otel import OtelTracing, open_tracing
from extproc.tracing import RecordingTracing, Stretch, TracingSettings, trace_parent
from loadtests.stack.trace_collector import serve_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.mark.parametrize("given", [SAMPLED, UNSAMPLED, f"cc-{TRACE}-{PARENT}-09"])
def test_a_traceparent_is_kept_as_it_is(given):
    assert trace_parent({"traceparent": given}) == given


def test_of_a_later_version_only_the_known_fields_are_kept():
    assert (
        trace_parent({"traceparent": f"01-{TRACE}-{PARENT}-01-what-comes-next"}) == f"01-{TRACE}-{PARENT}-01"
    )


@pytest.mark.parametrize(
    "given",
    [
        "",
        "words",
        SAMPLED.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"{SAMPLED}\n",
        f"{SAMPLED}more",
    ],
)
def test_anything_else_is_no_traceparent(given):
    assert trace_parent({"traceparent": given}) == ""


def test_a_request_may_have_no_traceparent():
    assert trace_parent({}) == ""


class Kept:
    """What a Tracing kept, in one shape for all: name, parent, seconds, whether it failed, attributes."""

    def __init__(self, tracing, spans):
        self.tracing = tracing
        self.spans = spans


def recording():
    tracing = RecordingTracing()

    def spans():
        for traceparent, whole, parts in tracing.told:
            yield (
                whole.name,
                traceparent[36:52],
                whole.ended - whole.began,
                whole.failed,
                dict(whole.attributes),
            )
            for part in parts:
                yield part.name, whole.name, part.ended - part.began, part.failed, dict(part.attributes)

    return Kept(tracing, spans)


def by_opentelemetry():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = OtelTracing(provider.get_tracer("test"), clock=time.monotonic, now_ns=time.time_ns)

    def spans():
        found = exporter.get_finished_spans()
        names = {each.context.span_id: each.name for each in found}
        for each in sorted(found, key=lambda span: (span.start_time, -span.end_time)):
            parent = (
                "" if each.parent is None else names.get(each.parent.span_id, f"{each.parent.span_id:016x}")
            )
            failed = each.status.status_code is StatusCode.ERROR
            seconds = (each.end_time - each.start_time) / 1e9
            yield each.name, parent, seconds, failed, dict(each.attributes)

    return Kept(tracing, spans)


@pytest.fixture(params=[recording, by_opentelemetry])
def kept(request):
    return request.param()


def test_an_exchange_is_a_span_below_the_clients_with_its_parts_below_it(kept):
    began = time.monotonic()
    whole = Stretch("tokenize", began, began + 0.5, {"n": 3, "ok": True, "how": "well"})
    kept.tracing.traced(
        SAMPLED, whole, [Stretch("parse", began, began + 0.2), Stretch("render", began + 0.2, began + 0.4)]
    )
    assert list(kept.spans()) == [
        ("tokenize", PARENT, pytest.approx(0.5, abs=1e-6), False, {"n": 3, "ok": True, "how": "well"}),
        ("parse", "tokenize", pytest.approx(0.2, abs=1e-6), False, {}),
        ("render", "tokenize", pytest.approx(0.2, abs=1e-6), False, {}),
    ]


def test_without_a_traceparent_a_span_is_a_root(kept):
    kept.tracing.traced("", Stretch("route", 1.0, 2.0))
    assert [(name, parent) for name, parent, *_ in kept.spans()] == [("route", "")]


def test_what_failed_is_marked(kept):
    kept.tracing.traced("", Stretch("route", 1.0, 2.0, failed=True), [Stretch("pick", 1.0, 1.5, failed=True)])
    assert [(name, failed) for name, _, _, failed, _ in kept.spans()] == [("route", True), ("pick", True)]


def test_what_the_client_does_not_sample_is_not_traced():
    kept = by_opentelemetry()
    kept.tracing.traced(UNSAMPLED, Stretch("route", 1.0, 2.0), [Stretch("pick", 1.0, 1.5)])
    assert not list(kept.spans())


def test_spans_have_the_time_of_day_also_after_it_was_set():
    exporter, day = InMemorySpanExporter(), [1_000_000_000_000_000_000]
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = OtelTracing(provider.get_tracer("test"), clock=lambda: 50.0, now_ns=lambda: day[0])
    tracing.traced("", Stretch("route", 49.0, 50.0))
    day[0] += 3_600_000_000_000
    tracing.traced("", Stretch("route", 49.0, 50.0))
    first, second = exporter.get_finished_spans()
    assert (first.end_time, second.end_time) == (1_000_000_000_000_000_000, 1_000_003_600_000_000_000)


@contextmanager
def traced_to(endpoint: str, registry: CollectorRegistry, ratio: float = 1.0):
    with open_tracing(
        TracingSettings(endpoint, ratio),
        service="a-service",
        version="1",
        metric_prefix="a_service",
        registry=registry,
        clock=time.monotonic,
        now_ns=time.time_ns,
    ) as tracing:
        yield tracing


def sent_and_lost(registry: CollectorRegistry) -> tuple[float | None, float | None]:
    return tuple(
        registry.get_sample_value("a_service_trace_spans_total", {"outcome": outcome})
        for outcome in ("sent", "lost")
    )


def test_what_is_still_queued_reaches_the_collector_when_tracing_ends():
    registry = CollectorRegistry()
    with serve_collector() as (url, collected):
        with traced_to(url, registry) as tracing:
            for _ in range(30):
                tracing.traced(SAMPLED, Stretch("route", 1.0, 2.0), [Stretch("pick", 1.0, 1.5)])
        spans = collected.spans()
    assert [sum(span.name == name for span in spans) for name in ("route", "pick")] == [30, 30]
    assert {(span.service, span.trace) for span in spans} == {("a-service", TRACE)}
    assert sent_and_lost(registry) == (60, 0)


def test_without_a_sampled_parent_the_ratio_decides():
    registry = CollectorRegistry()
    with serve_collector() as (url, collected):
        with traced_to(url, registry, ratio=0.0) as tracing:
            tracing.traced("", Stretch("route", 1.0, 2.0))
            tracing.traced(SAMPLED, Stretch("asked-for", 1.0, 2.0))
        assert [span.name for span in collected.spans()] == ["asked-for"]


def test_a_collector_that_is_away_loses_spans_and_holds_nothing_up(free_tcp_port):
    registry = CollectorRegistry()
    began = time.monotonic()
    with traced_to(f"http://127.0.0.1:{free_tcp_port}", registry) as tracing:
        tracing.traced("", Stretch("route", 1.0, 2.0))
    assert time.monotonic() - began < 6.0
    assert sent_and_lost(registry) == (0, 1)


@pytest.mark.parametrize("name", ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"])
def test_the_environment_may_name_the_service(monkeypatch, name):
    monkeypatch.setenv(name, "mine" if name == "OTEL_SERVICE_NAME" else "service.name=mine")
    with serve_collector() as (url, collected):
        with traced_to(url, CollectorRegistry()) as tracing:
            tracing.traced("", Stretch("route", 1.0, 2.0))
        assert [span.service for span in collected.spans()] == ["mine"]
