"""Where a service's log goes. What cannot be written is lost and counted: a full disk fails no request."""

import os
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["LineWriter", "LostLines"]


class LineWriter:
    """Writes lines to a file descriptor, unbuffered: nothing is left over that could fail when the process
    ends. Never raises.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: Final = descriptor
        self.lost = 0

    def write(self, text: str) -> None:
        """`text` ends with its line feed."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            whole = os.write(self._descriptor, data) == len(data)
        except OSError:
            whole = False
        if not whole:
            self.lost += 1

    def flush(self) -> None:
        """Nothing is kept back; `logging` asks all the same."""


class LostLines(Collector):
    """The writer's count as `<service>_log_lines_lost_total`."""

    def __init__(self, service: str, writer: LineWriter) -> None:
        self._service: Final = service
        self._writer: Final = writer

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            f"{self._service}_log_lines_lost",
            "Lines of the log that could not be written, as on a full disk.",
            value=self._writer.lost,
        )
