"""Scheduling profiles: filter, weigh, pick. The Inference Extension's seams, and its scheduling cycle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.load import EndpointLoad
from epp_adapter.routing.pickers import Picker
from epp_adapter.routing.prefix import NO_OVERLAP, Overlap
from epp_adapter.routing.strategy import RoutingRequest

__all__ = [
    "Candidates",
    "Filter",
    "Profile",
    "ProfileHandler",
    "Schedule",
    "Scorer",
    "SingleProfileHandler",
    "WeightedScorer",
]

_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Candidates:
    """What filters and scorers may look at: the request, and one entry per candidate in each column.

    `waiting` is an endpoint's own queue plus what was sent to it since it was read, so that a burst between
    two readings does not go to one endpoint; where no endpoint has metrics it is what is in flight.
    `overlaps` is by address; `block_count` is how many full blocks the prompt has, `block_size` their tokens.
    """

    request: RoutingRequest
    now: float
    endpoints: tuple[Endpoint, ...]
    loads: tuple[EndpointLoad | None, ...]
    waiting: tuple[int | None, ...]
    in_flight: tuple[int, ...]
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)
    block_count: int = 0
    block_size: int = 0

    def overlap(self, endpoint: Endpoint) -> Overlap:
        return self.overlaps.get(endpoint.address, NO_OVERLAP)

    def only(self, kept: Sequence[int]) -> "Candidates":
        """The candidates at these indices."""
        if len(kept) == len(self.endpoints):
            return self
        return replace(
            self,
            endpoints=tuple(self.endpoints[index] for index in kept),
            loads=tuple(self.loads[index] for index in kept),
            waiting=tuple(self.waiting[index] for index in kept),
            in_flight=tuple(self.in_flight[index] for index in kept),
        )


class Filter(Protocol):
    def keep(self, candidates: Candidates) -> Sequence[int]:
        """Indices of the candidates that stay, ascending."""
        ...


class Scorer(Protocol):
    def scores(self, candidates: Candidates) -> Sequence[float]:
        """One score from 0 to 1 for each candidate."""
        ...

    def picked(self, candidates: Candidates, endpoint: Endpoint) -> Mapping[str, str]:
        """The request goes to this endpoint. Returns headers for the client's response."""
        ...


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    scorer: Scorer
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Filters in order, then the weighted sum of all scores, then the picker."""

    name: str
    filters: tuple[Filter, ...]
    scorers: tuple[WeightedScorer, ...]
    picker: Picker

    def run(self, candidates: Candidates) -> tuple[Endpoint, ...]:
        """Endpoints, the choice first; empty where the filters leave none."""
        for each in self.filters:
            candidates = candidates.only(each.keep(candidates))
            if not candidates.endpoints:
                return ()
        total = [0.0] * len(candidates.endpoints)
        for weighted in self.scorers:
            weight = weighted.weight
            scores = weighted.scorer.scores(candidates)
            total = [so_far + weight * score for so_far, score in zip(total, scores, strict=True)]
        return tuple(candidates.endpoints[index] for index in self.picker.order(total))


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a profile handler decided: where the request goes, in order, and headers that its endpoint needs.

    `picks` are the profiles that ran and what each chose. A handler for disaggregated serving runs its
    prefill profile too, and names that endpoint in a header. No endpoints: the filters left none.
    """

    endpoints: tuple[Endpoint, ...]
    picks: tuple[tuple[Profile, Endpoint], ...] = ()
    request_headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


class ProfileHandler(Protocol):
    """Decides which profiles run for a request, and makes one schedule of their answers."""

    def schedule(self, run: Callable[[Profile], tuple[Endpoint, ...]]) -> Schedule:
        """`run` runs a profile on the request's candidates."""
        ...


class SingleProfileHandler:
    """single-profile-handler: the one profile decides."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def schedule(self, run: Callable[[Profile], tuple[Endpoint, ...]]) -> Schedule:
        endpoints = run(self._profile)
        return Schedule(endpoints, ((self._profile, endpoints[0]),) if endpoints else ())
