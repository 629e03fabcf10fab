"""Strategy `internal`: this process schedules by itself, in the Inference Extension's terms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.load import NO_LOADS, Booking, EndpointLoad, InFlight, LoadSource
from epp_adapter.routing.prefix import NO_OVERLAP, Overlap, PrefixKnowledge
from epp_adapter.routing.profile import Candidates, ProfileHandler, Schedule
from epp_adapter.routing.saturation import UtilizationLimits, sheds
from epp_adapter.routing.strategy import Fallback, RoutingRequest, StrategyError, StrategyFault
from extproc.dynamo_blocks import block_keys
from extproc.events import Termination
from extproc.wellknown import DYNAMO_DP_RANK_HEADER

__all__ = ["InternalStrategy", "PrefixOptions"]

# The reference's maxPrefixTokensToMatch: a large model's context. Longer prompts are matched up to here.
DEFAULT_MAX_PREFIX_TOKENS = 131_072


@dataclass(frozen=True, slots=True)
class PrefixOptions:
    """Who knows prefixes, and in blocks of how many tokens. `max_tokens` bounds the work for one prompt."""

    knowledge: PrefixKnowledge
    block_size: int = 16
    max_tokens: int = DEFAULT_MAX_PREFIX_TOKENS


class InternalStrategy:
    """Filters, scores and picks among the candidates; owns nothing but what is in flight.

    `limits` None: nobody is shed, for want of metrics to tell a full pool by. Raises StrategyError:
    NO_CANDIDATES; SHED where the pool is full and the request's priority below 0; FILTERED where the
    profile's filters leave no candidate.
    """

    def __init__(
        self,
        name: str,
        handler: ProfileHandler,
        *,
        clock: Callable[[], float],
        loads: LoadSource = NO_LOADS,
        prefixes: PrefixOptions | None = None,
        limits: UtilizationLimits | None = None,
    ) -> None:
        self.name = name
        self.in_flight = InFlight()
        self._handler = handler
        self._clock = clock
        self._loads = loads
        self._prefixes = prefixes
        self._limits = limits

    def requests_in_flight(self) -> int:
        """Of all endpoints together; may be asked by another thread."""
        return self.in_flight.total

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> "_InternalPick":
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        now = self._clock()
        loads = tuple(self._loads.loads([endpoint.address for endpoint in candidates]))
        if self._limits is not None and sheds(request.priority, loads, self._limits, now):
            raise StrategyError(StrategyFault.SHED, "the pool is saturated and the request sheddable")
        keys = self._keys(request)
        view = self._view(request, tuple(candidates), loads, keys, now)
        schedule = self._handler.schedule(lambda profile: profile.run(view))
        if not schedule.endpoints:
            raise StrategyError(StrategyFault.FILTERED, "the profile's filters left no candidate")
        return self._book(view, schedule, keys)

    def _keys(self, request: RoutingRequest) -> Sequence[int]:
        if self._prefixes is None or not request.token_ids:
            return ()
        size = self._prefixes.block_size
        limit = self._prefixes.max_tokens // size
        return block_keys(request.token_ids.packed, size, lora_name=request.lora_name, limit=limit)

    def _view(
        self,
        request: RoutingRequest,
        endpoints: tuple[Endpoint, ...],
        loads: tuple[EndpointLoad | None, ...],
        keys: Sequence[int],
        now: float,
    ) -> Candidates:
        addresses = [endpoint.address for endpoint in endpoints]
        busy = self.in_flight.busy()
        in_flight = tuple([self.in_flight.count(each) if each in busy else 0 for each in addresses])
        waiting: tuple[int | None, ...] = in_flight
        if any(load is not None for load in loads):
            waiting = tuple(
                [
                    None
                    if load is None
                    else load.waiting + self.in_flight.since(address, load.updated_at)
                    if address in busy
                    else load.waiting
                    for address, load in zip(addresses, loads, strict=True)
                ]
            )
        overlaps: Mapping[str, Overlap] = {}
        if self._prefixes is not None and keys:
            overlaps = self._prefixes.knowledge.overlaps(keys, endpoints)
        return Candidates(
            request=request,
            now=now,
            endpoints=endpoints,
            loads=loads,
            waiting=waiting,
            in_flight=in_flight,
            overlaps=overlaps,
            block_count=len(keys),
            block_size=self._prefixes.block_size if self._prefixes else 0,
        )

    def _book(self, view: Candidates, schedule: Schedule, keys: Sequence[int]) -> "_InternalPick":
        chosen = schedule.endpoints[0]
        overlap = view.overlap(chosen)
        response_headers: dict[str, str] = {}
        for profile, endpoint in schedule.picks:
            for weighted in profile.scorers:
                response_headers.update(weighted.scorer.picked(view, endpoint))
        cached_tokens = None
        if self._prefixes is not None and view.request.token_ids:
            (load,) = self._loads.loads((chosen.address,))
            self._prefixes.knowledge.picked(chosen, keys, load.num_blocks if load else 0)
            cached_tokens = overlap.device_blocks * self._prefixes.block_size
        return _InternalPick(
            strategy=self.name,
            destination=Destination(_tried_in_order(schedule.endpoints)),
            booking=self.in_flight.book(chosen.address, view.now),
            request_headers={**_rank_header(chosen, overlap), **schedule.request_headers},
            response_headers=response_headers,
            cached_tokens=cached_tokens,
        )


def _tried_in_order(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """A request to a Dynamo frontend is pinned to one worker by a header, so it has no second endpoint."""
    return endpoints[:1] if endpoints[0].dynamo_instance_id is not None else endpoints


def _rank_header(endpoint: Endpoint, overlap: Overlap) -> Mapping[str, str]:
    """Pin the rank that holds the prefix; without one the worker chooses among its ranks."""
    if endpoint.dynamo_instance_id is None or overlap == NO_OVERLAP or overlap.dp_rank is None:
        return {}
    return {DYNAMO_DP_RANK_HEADER: str(overlap.dp_rank)}


class _InternalPick:
    def __init__(
        self,
        *,
        strategy: str,
        destination: Destination,
        booking: Booking,
        request_headers: Mapping[str, str],
        response_headers: Mapping[str, str],
        cached_tokens: int | None,
    ) -> None:
        self.strategy = strategy
        self.destination = destination
        self.request_headers = request_headers
        self.response_headers = response_headers
        self.cached_tokens = cached_tokens
        self.fallbacks: tuple[Fallback, ...] = ()
        self._booking = booking

    async def first_token(self) -> None:
        """Nothing to tell: what is in flight counts until it ends."""

    async def finished(self, termination: Termination) -> None:
        del termination
        self._booking.release()
