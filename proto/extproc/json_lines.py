"""The shape that the log lines of both services have in common: time, level, logger, message.

What a line tells stands in fields beside these. Times are UTC (RFC 3339), in milliseconds.
"""

import logging
import time
from typing import Final

import orjson

from extproc.line_writer import LineWriter
from extproc.log_settings import LogLevel

__all__ = ["JsonLines", "TimeText", "log_through"]

_SECOND: Final = "%Y-%m-%dT%H:%M:%S"


class TimeText:
    """Seconds since 1970 as text. Owns that of the second it was asked for last, which costs the most."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def of(self, seconds: float) -> str:
        second = int(seconds)
        if second != self._second:
            self._second, self._text = second, time.strftime(_SECOND, time.gmtime(second))
        return f"{self._text}.{int((seconds - second) * 1000):03d}Z"


class JsonLines(logging.Formatter):
    """Formats each record of `logging` as one line of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._times: Final = TimeText()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self._times.of(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def log_through(writer: LineWriter, level: LogLevel, *, service: str) -> None:
    """Write what `logging` is told, from `level` on. Of the process: called once, at its start.

    `service` is the service's package. Only it and this one are asked for their debug lines: what others
    write there is not known to be free of what clients sent.
    """
    handler = logging.StreamHandler(writer)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=max(level.rank, LogLevel.INFO.rank), handlers=[handler])
    for package in ("extproc", service):
        logging.getLogger(package).setLevel(level.rank)
