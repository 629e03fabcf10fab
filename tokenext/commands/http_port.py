"""The HTTP port of a tokenext process: the render API (docs/render-api.md), if the settings have `http`."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.settings_file import SettingsError
from tokenext.render_api.asgi import HttpLimits, application
from tokenext.render_api.http_server import serve_http
from tokenext.render_api.service import RenderApi
from tokenext.settings import Settings

__all__ = ["http_port"]


@asynccontextmanager
async def http_port(
    settings: Settings,
    api: RenderApi,
    registry: CollectorRegistry,
    *,
    version: str,
    ready: Callable[[], bool],
    busy: Callable[[], bool],
) -> AsyncIterator[None]:
    """Serve it until the block is left; while `busy`, requests are refused unread.

    Raises SettingsError for an address that is taken.
    """
    if settings.http is None:
        yield
        return
    limits = HttpLimits(
        max_body_bytes=settings.limits.max_body_bytes, max_requests=settings.http.max_requests, busy=busy
    )
    registry.register(_HttpMetrics(limits))
    host, _, port = settings.http.listen.rpartition(":")
    serving = serve_http(
        application(api, limits, version=version, ready=ready),
        host,
        int(port),
        drain_seconds=settings.limits.drain_seconds,
    )
    try:
        await serving.__aenter__()
    except OSError as error:
        raise SettingsError("http.listen", f"cannot listen on {settings.http.listen}: {error}") from None
    try:
        yield
    finally:
        await serving.__aexit__(None, None, None)


class _HttpMetrics(Collector):
    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "tokenext_http_requests_open", "Requests of the HTTP API that are open.", value=self._limits.open
        )
        yield CounterMetricFamily(
            "tokenext_http_requests_refused",
            "Requests of the HTTP API that were answered 503 unread, since too many were open or waited.",
            value=self._limits.refused,
        )
