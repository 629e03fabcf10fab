"""Who hears of what happens: the metrics and the log of everything, the traces of exchanges."""

from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.json_log import JsonLog
from tokenext.metrics import PrometheusObserver
from tokenext.observer import ExchangeRecord, Observer
from tokenext.parity import ParityRecord
from tokenext.spans import ExchangeSpans

__all__ = ["Observers"]


class Observers:
    """Hands every fact to the metrics and to the log, and every exchange to the traces, if there are any."""

    def __init__(
        self, metrics: PrometheusObserver, log: JsonLog, spans: ExchangeSpans | None = None, *, readable: bool
    ) -> None:
        """`readable` False: there is no admin port, so no exchange is counted: only it would show it."""
        self._all = (metrics, log)
        of_exchanges: list[Observer] = [*self._all] if readable else [log]
        self._of_exchanges = (*of_exchanges, *(() if spans is None else (spans,)))

    def exchanged(self, record: ExchangeRecord) -> None:
        for observer in self._of_exchanges:
            observer.exchanged(record)

    def reloaded(self, catalog: Catalog) -> None:
        for observer in self._all:
            observer.reloaded(catalog)

    def reload_failed(self, problem: str) -> None:
        for observer in self._all:
            observer.reload_failed(problem)

    def breaker_changed(self, model: str, state: BreakerState) -> None:
        for observer in self._all:
            observer.breaker_changed(model, state)

    def verified(self, record: ParityRecord) -> None:
        for observer in self._all:
            observer.verified(record)
