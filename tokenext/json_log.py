"""One JSON line per exchange and per event of the process; no prompt, no token id, nothing a client chose."""

from collections.abc import Callable
from typing import Final

import orjson

from extproc.verdict import JsonValue
from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.observer import ExchangeRecord
from tokenext.parity import Agreement, Finding, ParityRecord

__all__ = ["JsonLog"]


class JsonLog:
    """Writes lines through `write`. `exchanges` turns the line per exchange on."""

    def __init__(self, write: Callable[[str], object], *, exchanges: bool = True) -> None:
        self._write: Final = write
        self._exchanges: Final = exchanges

    def exchanged(self, record: ExchangeRecord) -> None:
        if not self._exchanges:
            return
        self._line(
            "exchange",
            model=record.model,
            outcome=record.outcome,
            reason=record.reason,
            engine_exact=record.engine_exact,
            handed_off=record.handed_off,
            prompt_tokens=record.prompt_tokens,
            request_id=record.request_id,
            microseconds={stage.value: round(seconds * 1e6) for stage, seconds in record.seconds.items()},
        )

    def reloaded(self, catalog: Catalog) -> None:
        self._line("reloaded")
        self.models(catalog)

    def reload_failed(self, problem: str) -> None:
        self._line("reload_failed", problem=problem)

    def verified(self, record: ParityRecord) -> None:
        """A line for a mismatch, for a round that learnt nothing, and for a return to a clean standing.

        A probe is named by its number, which stands for a text of ours (probe_corpus.py).
        """
        report = record.report
        counts: JsonValue = {each.value: report.count(each) for each in Agreement if report.count(each)}
        smallest = report.smallest_mismatch
        if smallest is not None:
            self._line(
                "parity_mismatch",
                severity="error",
                model=record.model,
                probe=smallest.number,
                probes=counts,
                handoff="off",
            )
        elif report.finding is Finding.INCONCLUSIVE:
            self._line("parity_inconclusive", severity="warning", model=record.model, problem=report.problem)
        elif record.standing is not record.before:
            self._line("parity_clean", model=record.model, probes=counts)

    def breaker_changed(self, model: str, state: BreakerState) -> None:
        severity = "info" if state is BreakerState.CLOSED else "warning"
        self._line("breaker", severity=severity, model=model, state=state.value)

    def process_ended(self, number: int, status: int) -> None:
        """One of several processes ended unasked; it is started again unless its settings are at fault."""
        self._line("process_ended", severity="error", process=number, status=status)

    def models(self, catalog: Catalog) -> None:
        """One line per model: which tokenizer serves it, and why that one."""
        for model in catalog.models:
            self._line(
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
        self._line("serving", address=address, tls_address=tls_address)

    def stopped(self) -> None:
        self._line("stopped")

    def _line(self, event: str, **fields: JsonValue) -> None:
        told = {name: value for name, value in fields.items() if value not in ("", None)}
        self._write(orjson.dumps({"event": event, **told}).decode() + "\n")
