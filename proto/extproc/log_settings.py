"""What a service logs: the `log` section of both settings files, and which exchanges get a line by it."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

__all__ = ["ExchangeLines", "LogLevel", "LogSettings"]

_SHARES: Final = 1_000_000_000  # a float of 0.1 added up ten times is not 1


class LogLevel(StrEnum):
    """From the most to the least that is told."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """The number that `logging` knows the level by."""
        return _RANKS[self]


_RANKS: Final = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines below `level` are not written. Of the exchanges that went as they should, the share
    `exchange_ratio` is, evenly; those that did not, at level warning, always are.
    """

    level: LogLevel = LogLevel.INFO
    exchange_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class ExchangeLines:
    """Owns how far the next line is away. The share is exact over any stretch: of n exchanges that went well
    n times the share get a line, less than one more or less.
    """

    def __init__(self, settings: LogSettings) -> None:
        self._well: Final = settings.level.rank <= LogLevel.INFO.rank
        self._ill: Final = settings.level.rank <= LogLevel.WARNING.rank
        self._share: Final = round(settings.exchange_ratio * _SHARES)
        self._due = 0

    def level(self, *, troubled: bool) -> LogLevel | None:
        """The level of the exchange's line; None: it gets none. Asked once per exchange."""
        if troubled:
            return LogLevel.WARNING if self._ill else None
        if not self._well:
            return None
        self._due += self._share
        if self._due < _SHARES:
            return None
        self._due -= _SHARES
        return LogLevel.INFO
