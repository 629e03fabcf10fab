"""What is reported of an exchange, when it is routed and when it is over: frozen facts."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from epp_adapter.passive_health import Served
from epp_adapter.records.finder import Finding
from epp_adapter.response_body import Usage
from epp_adapter.response_timing import NOT_SEEN, ResponseFacts
from epp_adapter.routing.strategy import Fallback
from extproc.events import Termination

__all__ = ["ExchangeRecord", "Outcome", "RequestRouted"]


_SERVER_ERROR: Final = 500


class Outcome(StrEnum):
    """How an exchange went, as far as this adapter decides it; a metric label."""

    ROUTED = "routed"
    REFUSED_NO_ENDPOINT = "refused_no_endpoint"
    REFUSED_UNKNOWN_STRATEGY = "refused_unknown_strategy"
    REFUSED_BAD_REQUEST = "refused_bad_request"
    REFUSED_TOO_LARGE = "refused_too_large"
    REFUSED_TOO_MANY_HEADERS = "refused_too_many_headers"
    REFUSED_OVERLOADED = "refused_overloaded"
    REFUSED_DEADLINE = "refused_deadline"
    UNDECIDED = "undecided"  # the client left, or we failed, before a verdict
    RESPONSE_ONLY = "response_only"  # an earlier filter answered; there was no request to route


@dataclass(frozen=True, slots=True)
class RequestRouted:
    """A request has its verdict, and runs from now on until its ExchangeRecord comes, of the same values and
    of the outcome ROUTED.
    """

    model: str
    rewritten: bool
    priority: int


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """What happened in one exchange; safe to log and to count.

    `request_id` is x-request-id where that is a UUID, else empty. `model` is tokenext's catalog name, else
    empty. `strategy` is who picked, else empty. `pick_seconds` is None where nothing was asked to pick.
    `findings`: where a token record was looked for, and what came of it. `served` is None where no response
    was seen. `usage` is what the model server counted, where the response body could be read. `rewritten`:
    the model server was asked for another model than the client asked for. `priority` is the objective's.
    `request_bytes` is the body's size as it came to this picker, None where neither it was seen nor its
    length told. `decide_seconds`: from the first message to the verdict, None where there was none.
    `traceparent` is the client's where it has the form of one. `opened` and `pick_began` are times of the
    exchange's clock.
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
    findings: tuple[Finding, ...] = ()
    pick_seconds: float | None = None
    response_status: int = 0
    served: Served | None = None
    usage: Usage | None = None
    rewritten: bool = False
    priority: int = 0
    total_seconds: float = 0.0
    request_bytes: int | None = None
    decide_seconds: float | None = None
    response: ResponseFacts = NOT_SEEN
    traceparent: str = ""
    opened: float = 0.0
    pick_began: float = 0.0

    @property
    def troubled(self) -> bool:
        """It did not go as it should, whoever is to blame: refused or without a verdict, not picked by the
        strategy that was to pick, or answered 5xx.
        """
        return (
            self.outcome not in _WELL
            or bool(self.fallbacks)
            or self.response_status >= _SERVER_ERROR
            or self.termination is Termination.FAILED
        )


_WELL: Final = (Outcome.ROUTED, Outcome.RESPONSE_ONLY)  # a set would ask an enum for its hash
