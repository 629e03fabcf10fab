"""Scorers: pure functions from what is known of each candidate to its score, from 0 (avoid) to 1 (prefer).

Formulas are the reference's (llm-d-router, pkg/epp/framework/plugins/scheduling/scorer). Every function takes
one value per candidate, in the candidates' order, and returns one score per candidate in the same order.
None stands for "not known". The reference leaves such a candidate unscored, which counts as 0; so does this,
but where nothing is known of any candidate all score 1, since a metric that nobody has prefers nobody.
"""

from collections.abc import Sequence
from typing import Final

from epp_adapter.routing.load import EndpointLoad

__all__ = [
    "LOWER_TIER_CREDIT",
    "active_request_scores",
    "affinity_scores",
    "kv_cache_utilization_scores",
    "lora_affinity_scores",
    "prefix_scores",
    "queue_scores",
    "running_requests_scores",
]

# lora-affinity-scorer: the adapter runs there; it can be loaded; it waits to be loaded; it does not fit.
_LORA_ACTIVE: Final = 1.0
_LORA_FITS: Final = 0.8
_LORA_WAITING: Final = 0.6
_LORA_FULL: Final = 0.0

# What a block in host memory or on disk is worth beside one on the device; llm-d's KV cache index weighs
# its CPU backend like this. It must be read back before it is used.
LOWER_TIER_CREDIT: Final = 0.8


def queue_scores(waiting: Sequence[int | None]) -> list[float]:
    """queue-scorer: 1 for the shortest queue of the candidates, 0 for the longest, linear between."""
    return _shortest_is_best(waiting)


def running_requests_scores(running: Sequence[int | None]) -> list[float]:
    """running-requests-size-scorer: as `queue_scores`, over requests that run."""
    return _shortest_is_best(running)


def _shortest_is_best(counts: Sequence[int | None]) -> list[float]:
    known = [count for count in counts if count is not None]
    if not known:
        return [1.0] * len(counts)
    longest = max(known)
    spread = longest - min(known)
    if not spread:
        return [0.0 if count is None else 1.0 for count in counts]
    return [0.0 if count is None else (longest - count) / spread for count in counts]


def active_request_scores(in_flight: Sequence[int]) -> list[float]:
    """active-request-scorer: 1 where nothing of ours is in flight, 0 where most is."""
    most = max(in_flight, default=0)
    return [1.0 - count / most if most else 1.0 for count in in_flight]


def kv_cache_utilization_scores(utilization: Sequence[float | None]) -> list[float]:
    """kv-cache-utilization-scorer: the free part of the KV cache."""
    if all(used is None for used in utilization):
        return [1.0] * len(utilization)
    return [
        0.0 if used is None or used >= 1.0 else 1.0 if used <= 0.0 else 1.0 - used for used in utilization
    ]


def lora_affinity_scores(loads: Sequence[EndpointLoad | None], adapter: str) -> list[float]:
    """lora-affinity-scorer: 1 where the adapter runs, 0.8 where one more fits, 0.6 where it waits, else 0."""
    return [_lora_score(load, adapter) for load in loads]


def _lora_score(load: EndpointLoad | None, adapter: str) -> float:
    if load is None:
        return _LORA_FULL
    if adapter in load.active_adapters:
        return _LORA_ACTIVE
    if len(load.active_adapters) + len(load.waiting_adapters) < load.max_adapters:
        return _LORA_FITS
    return _LORA_WAITING if adapter in load.waiting_adapters else _LORA_FULL


def affinity_scores(addresses: Sequence[str], wanted: str | None) -> list[float]:
    """session-affinity-scorer: 1 for the endpoint that served the session before, 0 for all others."""
    return [1.0 if address == wanted else 0.0 for address in addresses]


def prefix_scores(
    matched: Sequence[tuple[int, int]],
    block_count: int,
    *,
    block_size: int = 0,
    length_weight: float = 0.0,
    max_model_len: int = 8192,
) -> list[float]:
    """prefix-cache-scorer: the part of the prompt's full blocks that each candidate holds already.

    `matched` is (blocks on the device, blocks in any tier) per candidate. A block that is only in a lower
    tier counts LOWER_TIER_CREDIT. `length_weight` (prefixLengthWeight) mixes in the square of the matched
    tokens' share of `max_model_len`, which prefers long matches over short ones of the same share.
    """
    if not block_count:
        return [0.0] * len(matched)
    scores = []
    for device_blocks, blocks in matched:
        credited = device_blocks + LOWER_TIER_CREDIT * (blocks - device_blocks)
        share = min(1.0, credited / block_count)
        if length_weight:
            length = min(1.0, credited * block_size / max_model_len) ** 2
            share = length_weight * length + (1.0 - length_weight) * share
        scores.append(share)
    return scores
