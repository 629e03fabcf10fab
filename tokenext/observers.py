"""Who hears of what happens: the metrics and the log, both of everything."""

from tokenext.breaker import BreakerState
from tokenext.catalog import Catalog
from tokenext.json_log import JsonLog
from tokenext.metrics import PrometheusObserver
from tokenext.observer import ExchangeRecord
from tokenext.parity import ParityRecord

__all__ = ["Observers"]


class Observers:
    """Hands every fact to the metrics and to the log."""

    def __init__(self, metrics: PrometheusObserver, log: JsonLog) -> None:
        self._all = (metrics, log)

    def exchanged(self, record: ExchangeRecord) -> None:
        for observer in self._all:
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
