"""Filters and scorers as a profile runs them: a pure function of the candidates, with its parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.filters import (
    LabelRequirement,
    by_label,
    by_selector,
    by_test_header,
    by_utilization,
)
from epp_adapter.routing.prefix import NO_OVERLAP
from epp_adapter.routing.profile import Candidates
from epp_adapter.routing.saturation import UtilizationLimits
from epp_adapter.routing.scorers import (
    active_request_scores,
    affinity_scores,
    kv_cache_utilization_scores,
    lora_affinity_scores,
    prefix_scores,
    queue_scores,
    running_requests_scores,
)
from epp_adapter.routing.sessions import SessionTable, decode_token, encode_token

__all__ = [
    "ACTIVE_REQUESTS",
    "KV_CACHE_UTILIZATION",
    "LORA_AFFINITY",
    "QUEUE",
    "RUNNING_REQUESTS",
    "LabelFilter",
    "PlainScorer",
    "PrefixScorer",
    "SelectorFilter",
    "SessionIdScorer",
    "SessionTokenScorer",
    "TestHeaderFilter",
    "UtilizationFilter",
]

_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class LabelFilter:
    label: str
    values: frozenset[str]
    allows_no_label: bool = False

    def keep(self, candidates: Candidates) -> Sequence[int]:
        return by_label(candidates.endpoints, self.label, self.values, allows_no_label=self.allows_no_label)


@dataclass(frozen=True, slots=True)
class SelectorFilter:
    requirements: tuple[LabelRequirement, ...]

    def keep(self, candidates: Candidates) -> Sequence[int]:
        return by_selector(candidates.endpoints, self.requirements)


@dataclass(frozen=True, slots=True)
class TestHeaderFilter:
    __test__ = False  # the name is the reference's; pytest is not meant

    def keep(self, candidates: Candidates) -> Sequence[int]:
        return by_test_header(candidates.endpoints, candidates.request.headers)


@dataclass(frozen=True, slots=True)
class UtilizationFilter:
    limits: UtilizationLimits

    def keep(self, candidates: Candidates) -> Sequence[int]:
        return by_utilization(candidates.loads, self.limits, candidates.now)


@dataclass(frozen=True, slots=True)
class PlainScorer:
    """A scorer that remembers nothing."""

    function: Callable[[Candidates], list[float]]

    def scores(self, candidates: Candidates) -> Sequence[float]:
        return self.function(candidates)

    def picked(self, candidates: Candidates, endpoint: Endpoint) -> Mapping[str, str]:
        del candidates, endpoint
        return _NO_HEADERS


def _lora(candidates: Candidates) -> list[float]:
    request = candidates.request
    return lora_affinity_scores(candidates.loads, request.lora_name or request.model)


QUEUE: Final = PlainScorer(lambda candidates: queue_scores(candidates.waiting))
RUNNING_REQUESTS: Final = PlainScorer(
    lambda candidates: running_requests_scores(
        [None if load is None else load.running for load in candidates.loads]
    )
)
KV_CACHE_UTILIZATION: Final = PlainScorer(
    lambda candidates: kv_cache_utilization_scores(
        [None if load is None else load.kv_utilization for load in candidates.loads]
    )
)
ACTIVE_REQUESTS: Final = PlainScorer(lambda candidates: active_request_scores(candidates.in_flight))
LORA_AFFINITY: Final = PlainScorer(_lora)


@dataclass(frozen=True, slots=True)
class PrefixScorer:
    """`length_weight` and `max_model_len` are prefixLengthWeight and maxModelLen."""

    length_weight: float = 0.0
    max_model_len: int = 8192

    def scores(self, candidates: Candidates) -> Sequence[float]:
        held = candidates.overlaps.get
        overlaps = [held(endpoint.address, NO_OVERLAP) for endpoint in candidates.endpoints]
        distinct = list(set(overlaps))  # hundreds of candidates share a handful of overlaps
        scores = prefix_scores(
            [(overlap.device_blocks, overlap.blocks) for overlap in distinct],
            candidates.block_count,
            block_size=candidates.block_size,
            length_weight=self.length_weight,
            max_model_len=self.max_model_len,
        )
        return list(map(dict(zip(distinct, scores, strict=True)).__getitem__, overlaps))

    def picked(self, candidates: Candidates, endpoint: Endpoint) -> Mapping[str, str]:
        del candidates, endpoint
        return _NO_HEADERS


@dataclass(frozen=True, slots=True)
class SessionTokenScorer:
    """Algorithm encoded_endpoint_header: the client carries the address of its endpoint in a header.

    The token names an endpoint and proves nothing: a client that makes one up chooses among the candidates,
    as far as the other scorers let it.
    """

    header: str

    def scores(self, candidates: Candidates) -> Sequence[float]:
        wanted = decode_token(candidates.request.headers.get(self.header, ""))
        return affinity_scores([endpoint.address for endpoint in candidates.endpoints], wanted)

    def picked(self, candidates: Candidates, endpoint: Endpoint) -> Mapping[str, str]:
        del candidates
        return {self.header: encode_token(endpoint.address)}


@dataclass(frozen=True, slots=True)
class SessionIdScorer:
    """Algorithm session_id_header: the client names its session, and `table` remembers the endpoint."""

    header: str
    table: SessionTable

    def scores(self, candidates: Candidates) -> Sequence[float]:
        addresses = [endpoint.address for endpoint in candidates.endpoints]
        session_id = candidates.request.headers.get(self.header)
        wanted = self.table.wanted(session_id, addresses, candidates.now) if session_id else None
        return affinity_scores(addresses, wanted)

    def picked(self, candidates: Candidates, endpoint: Endpoint) -> Mapping[str, str]:
        session_id = candidates.request.headers.get(self.header)
        if session_id:
            self.table.served(session_id, endpoint.address, candidates.now)
        return _NO_HEADERS
