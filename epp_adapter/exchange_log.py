"""One JSON line per exchange, and one JSON line for everything else the process has to say."""

import logging
from typing import Final

import orjson

from epp_adapter.exchange import ExchangeRecord

__all__ = ["JsonLines", "log_exchange"]

_log = logging.getLogger(__name__)
_EXCHANGE: Final = "exchange"


def log_exchange(record: ExchangeRecord) -> None:
    """An observer. The record holds no prompt, no token id and no string that a client chose."""
    _log.info(_EXCHANGE, extra={_EXCHANGE: record})


class JsonLines(logging.Formatter):
    """Formats each log record as one JSON object: time, level, logger, message, and an exchange's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        exchange = getattr(record, _EXCHANGE, None)
        if isinstance(exchange, ExchangeRecord):
            line.update(_fields(exchange))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def _fields(record: ExchangeRecord) -> dict[str, object]:
    """Times in milliseconds; what is empty is left out."""
    fields: dict[str, object] = {
        "x_request_id": record.request_id,
        "outcome": record.outcome,
        "termination": record.termination.value,
        "model": record.model,
        "strategy": record.strategy,
        "destination": record.destination,
        "fallbacks": [f"{fallback.strategy}:{fallback.fault}" for fallback in record.fallbacks],
        "record": [f"{finding.source}:{finding.outcome}" for finding in record.findings],
        "token_count": record.token_count,
        "cached_tokens": record.cached_tokens,
        "pick_ms": None if record.pick_seconds is None else round(record.pick_seconds * 1e3, 3),
        "response_status": record.response_status,
        "served": record.served,
        "rewritten": record.rewritten or None,
        "usage": None
        if record.usage is None
        else [record.usage.prompt_tokens, record.usage.completion_tokens],
        "total_ms": round(record.total_seconds * 1e3, 3),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}
