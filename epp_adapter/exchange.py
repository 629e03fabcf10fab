"""One HTTP request and its response: pick an endpoint, tell Envoy, keep the pick's books until the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from epp_adapter.endpoints import Endpoint, EndpointSource, candidates, parse_subset_hint
from epp_adapter.routing.strategy import (
    Fallback,
    Pick,
    RoutingRequest,
    RoutingStrategy,
    StrategyError,
    StrategyFault,
)
from extproc import wellknown
from extproc.errors import (
    ChainError,
    DeadlineExceededError,
    NoReadyEndpointError,
    OverloadedError,
    UnknownStrategyError,
)
from extproc.events import Headers, RequestReady, ResponseEvent, ResponseStarted, Termination
from extproc.token_metadata import RecordError, RecordFault, TokenRecord
from extproc.token_metadata import decode as decode_record
from extproc.verdict import NO_EDIT, ResponseEdit, Verdict

__all__ = ["EppExchange", "ExchangeRecord", "Outcome", "RecordState", "Routing"]

_REMOVED: Final = (*wellknown.CHAIN_OWNED_HEADERS, wellknown.STRATEGY_HEADER)
# Values of the reference Endpoint Picker (llm-d-router, pkg/common/error).
_NO_ENDPOINTS: Final = {wellknown.DROPPED_REASON_HEADER: "rejected-no-endpoints"}
_SATURATED: Final = {wellknown.DROPPED_REASON_HEADER: "rejected-saturated"}


class Outcome(StrEnum):
    """How an exchange went, as far as this adapter decides it; a metric label."""

    ROUTED = "routed"
    REFUSED_NO_ENDPOINT = "refused_no_endpoint"
    REFUSED_UNKNOWN_STRATEGY = "refused_unknown_strategy"
    REFUSED_OVERLOADED = "refused_overloaded"
    REFUSED_DEADLINE = "refused_deadline"
    UNDECIDED = "undecided"  # the client left, or we failed, before a verdict
    RESPONSE_ONLY = "response_only"  # an earlier filter answered; there was no request to route


class RecordState(StrEnum):
    """Whether token ids came with a request; beside these two a RecordFault: why a record was ignored."""

    ABSENT = "absent"
    USED = "used"


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """What happened in one exchange; safe to log and to count.

    `request_id` is x-request-id where that is a UUID, else empty. `model` is tokenext's catalog name, else
    empty. `strategy` is who picked, else empty. `pick_seconds` is None where nothing was asked to pick.
    `record` is None where no request was seen.
    """

    outcome: Outcome
    termination: Termination
    request_id: str = ""
    model: str = ""
    strategy: str = ""
    destination: str = ""
    fallbacks: tuple[Fallback, ...] = ()
    token_count: int = 0
    cached_tokens: int | None = None
    record: RecordState | RecordFault | None = None
    pick_seconds: float | None = None
    response_status: int = 0
    total_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """What every exchange of a process shares.

    `strategies` is by the name that `x-routing-strategy` may ask for. `clock` counts seconds from anywhere;
    `mint_id` makes a UUID that is never the same twice. Observers are called once per exchange, and must be
    quick.
    """

    endpoints: EndpointSource
    strategies: Mapping[str, RoutingStrategy]
    default_strategy: str
    clock: Callable[[], float]
    mint_id: Callable[[], str]
    observers: tuple[Callable[[ExchangeRecord], None], ...] = ()
    metadata_namespace: str = wellknown.RECORD_NAMESPACE
    clear_route_cache: bool = False


class EppExchange:
    """An `extproc.exchange.Exchange`."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._opened = routing.clock()
        self._closed = False
        self._pick: Pick | None = None
        self._outcome = Outcome.RESPONSE_ONLY
        self._request_id = ""
        self._record: TokenRecord | None = None
        self._record_state: RecordState | RecordFault | None = None
        self._pick_seconds: float | None = None
        self._response_status = 0

    async def decide(self, request: RequestReady) -> Verdict:
        self._outcome = Outcome.UNDECIDED
        try:
            verdict = await self._route(request)
        except ChainError as error:
            self._outcome = _OUTCOMES[type(error)]
            raise
        self._outcome = Outcome.ROUTED
        return verdict

    async def _route(self, request: RequestReady) -> Verdict:
        minted = self._read_request_id(request.headers)
        self._read_record(request)
        strategy = self._strategy(request.headers)
        hint = parse_subset_hint(request.metadata.get(wellknown.SUBSET_NAMESPACE, wellknown.SUBSET_KEY))
        among = candidates(self._routing.endpoints.current(), hint)
        if not among:
            detail = (
                "no endpoint is ready" if hint is None else "no endpoint that the gateway allows is ready"
            )
            raise NoReadyEndpointError(detail, headers=_NO_ENDPOINTS)
        self._pick = await self._pick_among(strategy, among, request.headers)
        return self._verdict(self._pick, minted)

    def _read_request_id(self, headers: Headers) -> Mapping[str, str]:
        """Keep the x-request-id for the log if no client can have put words into it; mint a missing one."""
        given = headers.get(wellknown.REQUEST_ID_HEADER)
        if given:
            self._request_id = _uuid_or_nothing(given)
            return {}
        self._request_id = self._routing.mint_id()
        return {wellknown.REQUEST_ID_HEADER: self._request_id}

    def _read_record(self, request: RequestReady) -> None:
        value = request.metadata.get(self._routing.metadata_namespace, wellknown.RECORD_KEY)
        if value is None:
            self._record_state = RecordState.ABSENT
            return
        try:
            self._record = decode_record(value)
            self._record_state = RecordState.USED
        except RecordError as error:
            self._record_state = error.fault

    def _strategy(self, headers: Headers) -> RoutingStrategy:
        strategies = self._routing.strategies
        name = headers.get(wellknown.STRATEGY_HEADER, "").strip() or self._routing.default_strategy
        if name not in strategies:
            raise UnknownStrategyError(f"{wellknown.STRATEGY_HEADER}: one of {', '.join(sorted(strategies))}")
        return strategies[name]

    async def _pick_among(
        self, strategy: RoutingStrategy, among: tuple[Endpoint, ...], headers: Headers
    ) -> Pick:
        record = self._record
        request = RoutingRequest(
            request_id=self._routing.mint_id(),
            model=record.model if record else "",
            token_ids=record.token_ids if record else None,
            headers=headers,
        )
        started = self._routing.clock()
        try:
            return await strategy.pick(request, among)
        except StrategyError as error:
            raise _refusal(error.fault) from error
        finally:
            self._pick_seconds = self._routing.clock() - started

    def _verdict(self, pick: Pick, minted: Mapping[str, str]) -> Verdict:
        destination = pick.destination.rendered()
        headers = {wellknown.DESTINATION_HEADER: destination, **pick.request_headers, **minted}
        instance_id = pick.destination.first.dynamo_instance_id
        if instance_id is not None:
            # Whoever picked: a Dynamo frontend in direct mode answers 400 to a request without the pin.
            headers[wellknown.DYNAMO_INSTANCE_HEADER] = str(instance_id)
        return Verdict(
            set_headers=headers,
            remove_headers=_REMOVED,
            metadata={wellknown.DESTINATION_NAMESPACE: {wellknown.DESTINATION_KEY: destination}},
            clear_route_cache=self._routing.clear_route_cache,
        )

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        if isinstance(event, ResponseStarted) and self._pick is not None and self._pick.response_headers:
            return ResponseEdit(set_headers=self._pick.response_headers)
        return NO_EDIT

    async def observe(self, event: ResponseEvent) -> None:
        if isinstance(event, ResponseStarted):
            self._response_status = event.status
            if self._pick is not None:
                await self._pick.first_token()

    async def close(self, termination: Termination) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._pick is not None:
                await self._pick.finished(termination)
        finally:
            record = self._summary(termination)
            for observer in self._routing.observers:
                observer(record)

    def _summary(self, termination: Termination) -> ExchangeRecord:
        pick, record = self._pick, self._record
        return ExchangeRecord(
            outcome=self._outcome,
            termination=termination,
            request_id=self._request_id,
            model=record.model if record else "",
            strategy=pick.strategy if pick else "",
            destination=pick.destination.rendered() if pick else "",
            fallbacks=pick.fallbacks if pick else (),
            token_count=len(record.token_ids) if record else 0,
            cached_tokens=pick.cached_tokens if pick else None,
            record=self._record_state,
            pick_seconds=self._pick_seconds,
            response_status=self._response_status,
            total_seconds=self._routing.clock() - self._opened,
        )


_OUTCOMES: Final[Mapping[type[ChainError], Outcome]] = {
    NoReadyEndpointError: Outcome.REFUSED_NO_ENDPOINT,
    UnknownStrategyError: Outcome.REFUSED_UNKNOWN_STRATEGY,
    OverloadedError: Outcome.REFUSED_OVERLOADED,
    DeadlineExceededError: Outcome.REFUSED_DEADLINE,
}


def _refusal(fault: StrategyFault) -> ChainError:
    """What the client is told when no configured strategy could pick."""
    if fault in (StrategyFault.OVERLOADED, StrategyFault.SHED):
        return OverloadedError("the endpoint picker is overloaded", headers=_SATURATED)
    if fault is StrategyFault.DEADLINE:
        return DeadlineExceededError("no endpoint was picked in time")
    return NoReadyEndpointError(f"no strategy could pick an endpoint ({fault})", headers=_NO_ENDPOINTS)


def _uuid_or_nothing(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return ""
