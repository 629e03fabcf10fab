"""The response side of an exchange: heeded for the endpoints' health, edited where it must be, and timed."""

from typing import Final

from epp_adapter.destinations import is_pinned
from epp_adapter.endpoints import Destination
from epp_adapter.exchange_context import Routing
from epp_adapter.passive_health import Served, read_feedback
from epp_adapter.response_body import Usage
from epp_adapter.response_reading import ResponseReading
from epp_adapter.response_timing import ResponseFacts, ResponseTiming
from epp_adapter.routing.strategy import Pick
from extproc import wellknown
from extproc.events import ResponseChunk, ResponseEvent, ResponseStarted
from extproc.verdict import NO_EDIT, ResponseEdit

__all__ = ["ResponseSide"]

# What the reference says where the gateway does not report who served (pkg/lwepp/handlers/response.go).
_NOT_REPORTED: Final = "fail: missing destination endpoint served metadata"
# Envoy's own 503 for a circuit breaker or its overload manager: no endpoint was asked.
_ENVOY_OVERLOADED: Final = "x-envoy-overloaded"


class ResponseSide:
    """Of one exchange that was opened at that time. Before `expect` nothing was picked for it."""

    __slots__ = ("_destination", "_pick", "_reading", "_routing", "_timing", "served")

    def __init__(self, routing: Routing, opened: float) -> None:
        self._routing = routing
        self._pick: Pick | None = None
        self._destination: Destination | None = None
        self._reading = ResponseReading()
        self._timing = ResponseTiming(opened, routing.clock)
        self.served: Served | None = None

    def expect(self, pick: Pick, destination: Destination, reading: ResponseReading | None) -> None:
        """Of whom the response will be; `reading`: where it is to be changed."""
        self._pick = pick
        self._destination = destination
        if reading is not None:
            self._reading = reading

    @property
    def usage(self) -> Usage | None:
        return self._reading.usage

    def facts(self) -> ResponseFacts:
        return self._timing.facts()

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        if isinstance(event, ResponseStarted):
            # Before the response goes on: whoever has seen a failure must not be sent there again.
            self._heed(event)
            self._timing.start(event)
            return self._edit_headers(event)
        if isinstance(event, ResponseChunk):
            self._timing.piece(event.body)
            return self._reading.read(event)
        return NO_EDIT

    def _heed(self, started: ResponseStarted) -> None:
        routing, destination = self._routing, self._destination
        if destination is None or self._pick is None or _ENVOY_OVERLOADED in started.headers:
            return
        served = started.metadata.get(wellknown.DESTINATION_NAMESPACE, wellknown.SERVED_KEY)
        pool = routing.endpoints.current().endpoints
        feedback = read_feedback(destination, started.status, served, pool, pinned=is_pinned(self._pick))
        self.served = feedback.served
        routing.health.heed(feedback, routing.clock())

    def _edit_headers(self, started: ResponseStarted) -> ResponseEdit:
        edit = self._reading.start(started)
        headers = dict(self._pick.response_headers) if self._pick else {}
        if self._routing.conformance:
            served = started.metadata.get(wellknown.DESTINATION_NAMESPACE, wellknown.SERVED_KEY)
            headers[wellknown.TEST_SERVED_HEADER] = served if isinstance(served, str) else _NOT_REPORTED
            headers[wellknown.RESPONSE_SEEN_HEADER] = "true"
            if self._destination is not None:
                headers[wellknown.TEST_SELECTED_HEADER] = self._destination.rendered()
        return ResponseEdit(headers, edit.remove_headers) if headers else edit
