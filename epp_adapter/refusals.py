"""What a client is told when its request is not routed, and how that is counted."""

from collections.abc import Mapping
from typing import Final

from epp_adapter.exchange_record import Outcome
from epp_adapter.routing.strategy import StrategyFault
from extproc import wellknown
from extproc.errors import (
    BadRequestError,
    BodyTooLargeError,
    ChainError,
    DeadlineExceededError,
    NoReadyEndpointError,
    OverloadedError,
    TooManyHeadersError,
    UnknownStrategyError,
)

__all__ = ["no_endpoint", "outcome_of", "refusal"]

# Values of the reference Endpoint Picker (llm-d-router, pkg/common/error).
_NO_ENDPOINTS: Final = {wellknown.DROPPED_REASON_HEADER: "rejected-no-endpoints"}
_SATURATED: Final = {wellknown.DROPPED_REASON_HEADER: "rejected-saturated"}
_OUTCOMES: Final[Mapping[type[ChainError], Outcome]] = {
    NoReadyEndpointError: Outcome.REFUSED_NO_ENDPOINT,
    UnknownStrategyError: Outcome.REFUSED_UNKNOWN_STRATEGY,
    BadRequestError: Outcome.REFUSED_BAD_REQUEST,
    BodyTooLargeError: Outcome.REFUSED_TOO_LARGE,
    TooManyHeadersError: Outcome.REFUSED_TOO_MANY_HEADERS,
    OverloadedError: Outcome.REFUSED_OVERLOADED,
    DeadlineExceededError: Outcome.REFUSED_DEADLINE,
}


def refusal(fault: StrategyFault) -> ChainError:
    """What the client is told when no configured strategy could pick."""
    if fault in (StrategyFault.OVERLOADED, StrategyFault.SHED):
        return OverloadedError("the endpoint picker is overloaded", headers=_SATURATED)
    if fault is StrategyFault.DEADLINE:
        return DeadlineExceededError("no endpoint was picked in time")
    return no_endpoint(f"no strategy could pick an endpoint ({fault})")


def no_endpoint(message: str) -> ChainError:
    """Protocol 004: 503, and the reference's word for it."""
    return NoReadyEndpointError(message, headers=_NO_ENDPOINTS)


def outcome_of(error: ChainError) -> Outcome:
    return _OUTCOMES.get(type(error), Outcome.UNDECIDED)
