"""Prometheus series of a server's streams."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.server import Server

__all__ = ["StreamMetrics"]


class StreamMetrics(Collector):
    """`<service>_streams_open` and `<service>_streams_refused_total`, read when metrics are."""

    def __init__(self, service: str, server: Server) -> None:
        self._service: Final = service
        self._server: Final = server

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            f"{self._service}_streams_open",
            "ext_proc streams that are open.",
            value=self._server.streams_open,
        )
        yield CounterMetricFamily(
            f"{self._service}_streams_refused",
            "ext_proc streams over the limit, whose requests passed or were refused without a look.",
            value=self._server.streams_refused,
        )
