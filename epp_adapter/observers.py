"""Who hears of an exchange: log, traces, and, where somebody can read them, metrics and the status page."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from epp_adapter.exchange_record import ExchangeRecord, RequestRouted
from epp_adapter.gateway_metrics import GatewayMetrics
from epp_adapter.metrics import Metrics
from epp_adapter.pool_metrics import PoolMetrics
from epp_adapter.records.finder import Finding
from epp_adapter.status_page import RecentPicks

__all__ = ["Observers", "observers"]


@dataclass(frozen=True, slots=True)
class Observers:
    """Of exchanges that are over, of requests that are routed, and of looks for a token record."""

    closed: tuple[Callable[[ExchangeRecord], None], ...]
    routed: tuple[Callable[[RequestRouted], None], ...] = ()
    looked: Callable[[Finding], None] = lambda _: None


def observers(
    metrics: Metrics,
    pool: PoolMetrics,
    gateway: GatewayMetrics,
    picks: RecentPicks,
    others: Iterable[Callable[[ExchangeRecord], None]],
    *,
    readable: bool,
) -> Observers:
    """`readable` False: there is no admin port, so nothing is counted that only it would show."""
    others = tuple(others)
    if not readable:
        return Observers(others)
    counted = (
        metrics.exchange_closed, pool.exchange_closed, gateway.exchange_closed, picks.exchange_closed,
    )  # fmt: skip
    return Observers((*counted, *others), (gateway.request_routed,), metrics.looked_for_record)
