"""Saturation: how full a pool is, and which requests are dropped when it is full."""

from collections.abc import Sequence
from dataclasses import dataclass

from epp_adapter.routing.load import EndpointLoad

__all__ = ["UtilizationLimits", "is_stale", "pool_saturation", "sheds"]


@dataclass(frozen=True, slots=True)
class UtilizationLimits:
    """Parameters of the reference's utilization-detector, with its defaults.

    `queue_depth` counts waiting requests and `kv_utilization` goes from 0 to 1: the ideal load of one
    endpoint. `staleness_seconds`: older metrics tell nothing, and such an endpoint counts as full. `headroom`
    widens both limits for the filter only; 0.2 is 20 % more.
    """

    queue_depth: int = 5
    kv_utilization: float = 0.8
    staleness_seconds: float = 0.2
    headroom: float = 0.0


def is_stale(load: EndpointLoad, limits: UtilizationLimits, now: float) -> bool:
    return now - load.updated_at > limits.staleness_seconds


def pool_saturation(loads: Sequence[EndpointLoad | None], limits: UtilizationLimits, now: float) -> float:
    """The mean over endpoints of how full the fuller of queue and KV cache is; 1 and more is saturated.

    An endpoint without fresh metrics counts 1. A pool without endpoints is saturated.
    """
    if not loads:
        return 1.0
    total = 0.0
    for load in loads:
        if load is None or is_stale(load, limits, now):
            total += 1.0
        else:
            total += max(load.waiting / limits.queue_depth, load.kv_utilization / limits.kv_utilization)
    return total / len(loads)


def sheds(priority: int, loads: Sequence[EndpointLoad | None], limits: UtilizationLimits, now: float) -> bool:
    """The reference's legacy admission: a negative priority is dropped where the pool is saturated."""
    return priority < 0 and pool_saturation(loads, limits, now) >= 1.0
