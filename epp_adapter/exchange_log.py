"""One JSON line per exchange, or for a share of them."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from epp_adapter.exchange_record import ExchangeRecord, Outcome
from epp_adapter.passive_health import Served
from extproc.events import Termination
from extproc.json_lines import TimeText
from extproc.log_settings import ExchangeLines, LogLevel, LogSettings

__all__ = ["ExchangeLog"]

_DEFAULT: Final = LogSettings()


class _Line(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is empty is left out. Times in milliseconds."""

    time: str
    level: LogLevel
    logger: str
    message: str
    request_id: str = ""
    outcome: Outcome
    termination: Termination
    model: str = ""
    strategy: str = ""
    destination: str = ""
    fallbacks: list[str] = []
    record: list[str] = []
    token_count: int
    cached_tokens: int | None = None
    pick_ms: float | None = None
    response_status: int
    served: Served | None = None
    rewritten: bool = False
    usage: tuple[int, int] | None = None
    total_ms: float


class ExchangeLog:
    """An observer. The record holds no prompt, no token id and no string that a client chose.

    It writes its lines itself, through `write`, which must not raise: `logging` would take a twentieth of
    what a request costs. `now` tells the time of day in seconds.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        settings: LogSettings = _DEFAULT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._lines = ExchangeLines(settings)
        self._now = now
        self._encoder = msgspec.json.Encoder()
        self._times = TimeText()

    def __call__(self, record: ExchangeRecord) -> None:
        level = self._lines.level(troubled=record.troubled)
        if level is not None:
            line = self._encoder.encode(_line(record, self._times.of(self._now()), level))
            self._write(line.decode() + "\n")


def _line(record: ExchangeRecord, time_of_day: str, level: LogLevel) -> _Line:
    usage = record.usage
    return _Line(
        time=time_of_day,
        level=level,
        logger=__name__,
        message="exchange",
        request_id=record.request_id,
        outcome=record.outcome,
        termination=record.termination,
        model=record.model,
        strategy=record.strategy,
        destination=record.destination,
        fallbacks=[f"{fallback.strategy}:{fallback.fault}" for fallback in record.fallbacks],
        record=[f"{finding.source}:{finding.outcome}" for finding in record.findings],
        token_count=record.token_count,
        cached_tokens=record.cached_tokens,
        pick_ms=None if record.pick_seconds is None else round(record.pick_seconds * 1e3, 3),
        response_status=record.response_status,
        served=record.served,
        rewritten=record.rewritten,
        usage=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
        total_ms=round(record.total_seconds * 1e3, 3),
    )
