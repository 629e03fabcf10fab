"""One HTTP request and its response: pick an endpoint, tell Envoy, keep the pick's books until the end."""

import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from epp_adapter.control_headers import REMOVED_HEADERS, ControlHeaders, read_control_headers
from epp_adapter.destinations import destination_of
from epp_adapter.endpoints import Destination, Endpoint, candidates, parse_subset_hint
from epp_adapter.exchange_context import Routing
from epp_adapter.exchange_record import ExchangeRecord, Outcome, RequestRouted
from epp_adapter.exchange_response import ResponseSide
from epp_adapter.model_rewriting import Rewritten  # noqa: TC001  # for one attribute's type
from epp_adapter.records.finder import FoundRecord
from epp_adapter.refusals import no_endpoint, outcome_of, refusal
from epp_adapter.response_reading import ResponseReading
from epp_adapter.response_timing import body_length
from epp_adapter.routing.strategy import Pick, RoutingRequest, RoutingStrategy, StrategyError
from extproc import wellknown
from extproc.errors import ChainError, TooManyHeadersError, UnknownStrategyError
from extproc.events import Headers, RequestReady, ResponseEvent, ResponseStarted, Termination
from extproc.tracing import trace_parent
from extproc.verdict import JsonValue, ResponseEdit, Verdict

__all__ = ["EppExchange", "ExchangeRecord", "Outcome", "Routing"]

# As Envoy and most clients write it; UUID() reads it in other ways, too, and takes four times as long.
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class EppExchange:
    """An `extproc.exchange.Exchange`."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._opened = routing.clock()
        self._closed = False
        self._pick: Pick | None = None
        self._destination: Destination | None = None
        self._rewritten: Rewritten | None = None
        self._response = ResponseSide(routing, self._opened)
        self._outcome = Outcome.RESPONSE_ONLY
        self._request_id = ""
        self._traceparent = ""
        self._found = FoundRecord(None, ())
        self._pick_began = 0.0
        self._pick_seconds: float | None = None
        self._response_status = 0
        self._priority = 0
        self._request_bytes: int | None = None
        self._decide_seconds: float | None = None

    async def decide(self, request: RequestReady) -> Verdict:
        self._outcome = Outcome.UNDECIDED
        try:
            verdict = await self._route(request)
        except ChainError as error:
            self._outcome = outcome_of(error)
            raise
        self._outcome = Outcome.ROUTED
        self._decide_seconds = self._routing.clock() - self._opened
        if self._routing.starters:
            routed = RequestRouted(self._model_named(), self._rewritten is not None, self._priority)
            for starter in self._routing.starters:
                starter(routed)
        return verdict

    async def _route(self, request: RequestReady) -> Verdict:
        headers, body = request.headers, request.body
        self._request_bytes = body_length(headers) if body is None else len(body)
        minted = self._read_request_id(headers)
        self._traceparent = trace_parent(headers)
        if headers.lines > self._routing.max_headers:
            raise TooManyHeadersError("the request has more headers than this gateway takes")
        self._found = await self._routing.records.find(request)
        control = read_control_headers(headers)
        self._rewritten = self._routing.rewriting.rewrite(request, control.model_rewrite)
        strategy = self._strategy(control.strategy)
        among = self._candidates(request, control)
        self._pick = pick = await self._pick_among(strategy, among, headers, control)
        self._destination = destination_of(pick, among, more=self._routing.destination_fallbacks)
        rewritten = self._rewritten
        reading = ResponseReading(served=rewritten.served, asked=rewritten.asked) if rewritten else None
        self._response.expect(pick, self._destination, reading)
        return self._verdict(pick, self._destination, minted)

    def _candidates(self, request: RequestReady, control: ControlHeaders) -> tuple[Endpoint, ...]:
        """Ready, allowed by the gateway, and not known to fail; never empty. Raises NoReadyEndpointError."""
        routing = self._routing
        hint = parse_subset_hint(request.metadata.get(wellknown.SUBSET_NAMESPACE, wellknown.SUBSET_KEY))
        allowed = candidates(routing.endpoints.current(), hint)
        if routing.conformance and control.test_selection:
            selection = parse_subset_hint(control.test_selection)
            allowed = tuple(each for each in allowed if selection is None or selection.allows(each))
        usable = routing.health.usable(allowed)
        if not usable:
            allowing = "" if hint is None else " that the gateway allows"
            detail = "answers" if allowed else "is ready"
            raise no_endpoint(f"no endpoint{allowing} {detail}")
        return usable

    def _read_request_id(self, headers: Headers) -> Mapping[str, str]:
        """Keep the x-request-id for the log if no client can have put words into it; mint a missing one."""
        given = headers.get(wellknown.REQUEST_ID_HEADER)
        if given:
            self._request_id = _uuid_or_nothing(given)
            return {}
        self._request_id = self._routing.mint_id()
        return {wellknown.REQUEST_ID_HEADER: self._request_id}

    def _strategy(self, asked: str) -> RoutingStrategy:
        strategies = self._routing.strategies
        model = self._model_asked_for()
        name = asked or self._routing.strategy_of.get(model, self._routing.default_strategy)
        if name not in strategies:
            raise UnknownStrategyError(f"{wellknown.STRATEGY_HEADER}: one of {', '.join(sorted(strategies))}")
        return strategies[name]

    async def _pick_among(
        self,
        strategy: RoutingStrategy,
        among: tuple[Endpoint, ...],
        headers: Headers,
        control: ControlHeaders,
    ) -> Pick:
        record = self._found.record
        model = self._model_asked_for()
        self._priority = self._routing.rewriting.rules.rules().priority(control.objective)
        request = RoutingRequest(
            request_id=self._routing.mint_id(),
            model=model,
            token_ids=record.token_ids if record else None,
            headers=headers,
            priority=self._priority,
            lora_name=model if model in self._routing.loras else "",
        )
        self._pick_began = self._routing.clock()
        try:
            return await strategy.pick(request, among)
        except StrategyError as error:
            raise refusal(error.fault) from error
        finally:
            self._pick_seconds = self._routing.clock() - self._pick_began

    def _model_named(self) -> str:
        """Of tokenext's catalog, never a word of the client's."""
        return self._found.record.model if self._found.record else ""

    def _model_asked_for(self) -> str:
        """Of the model server; a LoRA adapter's name, where rewriting chose one."""
        if self._rewritten is not None:
            return self._rewritten.served
        return self._model_named()

    def _verdict(self, pick: Pick, destination: Destination, minted: Mapping[str, str]) -> Verdict:
        rendered = destination.rendered()
        headers = {wellknown.DESTINATION_HEADER: rendered, **pick.request_headers, **minted}
        instance_id = destination.first.dynamo_instance_id
        if instance_id is not None:
            # Whoever picked: a Dynamo frontend in direct mode answers 400 to a request without the pin.
            headers[wellknown.DYNAMO_INSTANCE_HEADER] = str(instance_id)
        conformance = (wellknown.TEST_SELECTION_HEADER,) if self._routing.conformance else ()
        records = self._routing.records
        metadata: dict[str, dict[str, JsonValue]] = {
            wellknown.DESTINATION_NAMESPACE: {wellknown.DESTINATION_KEY: rendered}
        }
        if left := records.left_behind(self._found):
            metadata.setdefault(records.namespace, {}).update(left)
        return Verdict(
            set_headers=headers,
            remove_headers=REMOVED_HEADERS + conformance,
            body=self._rewritten.body if self._rewritten else None,
            metadata=metadata,
            clear_route_cache=self._routing.clear_route_cache,
        )

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        return self._response.edit(event)

    async def observe(self, event: ResponseEvent) -> None:
        if isinstance(event, ResponseStarted):
            self._response_status = event.status
            if self._pick is not None and not _is_whole(event):
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
        pick, record, response = self._pick, self._found.record, self._response
        return ExchangeRecord(
            outcome=self._outcome,
            termination=termination,
            request_id=self._request_id,
            model=self._model_named(),
            strategy=pick.strategy if pick else "",
            destination=self._destination.rendered() if self._destination else "",
            fallbacks=pick.fallbacks if pick else (),
            token_count=len(record.token_ids) if record else 0,
            cached_tokens=pick.cached_tokens if pick else None,
            findings=self._found.findings,
            pick_seconds=self._pick_seconds,
            response_status=self._response_status,
            served=response.served,
            usage=response.usage,
            rewritten=self._rewritten is not None,
            priority=self._priority,
            total_seconds=self._routing.clock() - self._opened,
            request_bytes=self._request_bytes,
            decide_seconds=self._decide_seconds,
            response=response.facts(),
            traceparent=self._traceparent,
            opened=self._opened,
            pick_began=self._pick_began,
        )


def _is_whole(started: ResponseStarted) -> bool:
    """The model server has all of the response: its end follows at once, and tells a pick enough."""
    return started.end_of_stream or "content-length" in started.headers


def _uuid_or_nothing(text: str) -> str:
    if _UUID.fullmatch(text):
        return text
    try:
        return str(UUID(text))
    except ValueError:
        return ""
