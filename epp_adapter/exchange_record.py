"""What is reported of an exchange when it is over: one frozen fact that metrics and log subscribe to."""

from dataclasses import dataclass
from enum import StrEnum

from epp_adapter.passive_health import Served
from epp_adapter.records.finder import Finding
from epp_adapter.response_body import Usage
from epp_adapter.routing.strategy import Fallback
from extproc.events import Termination

__all__ = ["ExchangeRecord", "Outcome"]


class Outcome(StrEnum):
    """How an exchange went, as far as this adapter decides it; a metric label."""

    ROUTED = "routed"
    REFUSED_NO_ENDPOINT = "refused_no_endpoint"
    REFUSED_UNKNOWN_STRATEGY = "refused_unknown_strategy"
    REFUSED_BAD_REQUEST = "refused_bad_request"
    REFUSED_TOO_LARGE = "refused_too_large"
    REFUSED_OVERLOADED = "refused_overloaded"
    REFUSED_DEADLINE = "refused_deadline"
    UNDECIDED = "undecided"  # the client left, or we failed, before a verdict
    RESPONSE_ONLY = "response_only"  # an earlier filter answered; there was no request to route


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """What happened in one exchange; safe to log and to count.

    `request_id` is x-request-id where that is a UUID, else empty. `model` is tokenext's catalog name, else
    empty. `strategy` is who picked, else empty. `pick_seconds` is None where nothing was asked to pick.
    `findings`: where a token record was looked for, and what came of it. `served` is None where no response
    was seen. `usage` is what the model server counted, where the response body could be read. `rewritten`:
    the model server was asked for another model than the client asked for. `priority` is the objective's.
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
