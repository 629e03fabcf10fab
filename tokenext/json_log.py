"""One JSON line per exchange and per event of the process; no prompt, no token id, nothing a client chose."""

import time
from collections.abc import Callable
from typing import Final

import orjson

from extproc.json_lines import TimeText
from extproc.log_settings import ExchangeLines, LogLevel, LogSettings
from extproc.verdict import JsonValue
from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.observer import ExchangeRecord
from tokenext.parity import Agreement, Finding, ParityRecord

__all__ = ["JsonLog"]


_LOGGER: Final = "tokenext"
_DEFAULT: Final = LogSettings()
_EMPTY: Final = ("", None)  # is left out


class JsonLog:
    """Writes lines through `write`, as `settings` say. `now` tells the time of day in seconds."""

    def __init__(
        self,
        write: Callable[[str], object],
        settings: LogSettings = _DEFAULT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._write: Final = write
        self._least: Final = settings.level.rank
        self._exchanges: Final = ExchangeLines(settings)
        self._now: Final = now
        self._times: Final = TimeText()

    def exchanged(self, record: ExchangeRecord) -> None:
        level = self._exchanges.level(troubled=record.troubled)
        if level is None:
            return
        fields: dict[str, JsonValue] = {
            "request_id": record.request_id,
            "model": record.model,
            "outcome": record.outcome,
            "reason": record.reason,
            "engine_exact": record.engine_exact,
            "handed_off": record.handed_off,
            "prompt_tokens": record.prompt_tokens,
            "microseconds": {stage.value: round(seconds * 1e6) for stage, seconds in record.seconds.items()},
        }
        self._line("exchange", level, fields)

    def reloaded(self, catalog: Catalog) -> None:
        self._event("reloaded")
        self.models(catalog)

    def reload_failed(self, problem: str) -> None:
        self._event("reload_failed", LogLevel.ERROR, problem=problem)

    def verified(self, record: ParityRecord) -> None:
        """A line for a mismatch, for a round that learnt nothing, and for a return to a clean standing.

        A probe is named by its number, which stands for a text of ours (probe_corpus.py).
        """
        report = record.report
        counts: JsonValue = {each.value: report.count(each) for each in Agreement if report.count(each)}
        smallest = report.smallest_mismatch
        if smallest is not None:
            self._event(
                "parity_mismatch",
                LogLevel.ERROR,
                model=record.model,
                probe=smallest.number,
                probes=counts,
                handoff="off",
            )
        elif report.finding is Finding.INCONCLUSIVE:
            self._event("parity_inconclusive", LogLevel.WARNING, model=record.model, problem=report.problem)
        elif record.standing is not record.before:
            self._event("parity_clean", model=record.model, probes=counts)

    def breaker_changed(self, model: str, state: BreakerState) -> None:
        level = LogLevel.INFO if state is BreakerState.CLOSED else LogLevel.WARNING
        self._event("breaker", level, model=model, state=state.value)

    def process_ended(self, number: int, status: int) -> None:
        """One of several processes ended unasked; it is started again unless its settings are at fault."""
        self._event("process_ended", LogLevel.ERROR, process=number, status=status)

    def models(self, catalog: Catalog) -> None:
        """One line per model: which tokenizer serves it, and why that one."""
        for model in catalog.models:
            self._event(
                "model",
                name=model.name,
                digest=model.digest,
                engine=model.engine.name,
                engine_reason=model.engine_reason,
                profile=model.profile.name,
                handoff=model.handoff,
                prefix_cache=model.prefix_cache,
            )

    def serving(self, address: str, tls_address: str | None = None) -> None:
        self._event("serving", address=address, tls_address=tls_address)

    def stopped(self) -> None:
        self._event("stopped")

    def _event(self, message: str, level: LogLevel = LogLevel.INFO, **fields: JsonValue) -> None:
        if level.rank >= self._least:
            self._line(message, level, fields)

    def _line(self, message: str, level: LogLevel, fields: dict[str, JsonValue]) -> None:
        told: dict[str, JsonValue] = {
            "time": self._times.of(self._now()),
            "level": level,
            "logger": _LOGGER,
            "message": message,
        }
        told |= {name: value for name, value in fields.items() if value not in _EMPTY}
        self._write(orjson.dumps(told).decode() + "\n")
