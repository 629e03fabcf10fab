"""Exchanges as spans: `route`, as long as the exchange, and below it `pick`."""

from collections.abc import Callable
from typing import Final

from epp_adapter.exchange_record import ExchangeRecord, Outcome
from extproc.tracing import Attribute, Stretch, Tracing

__all__ = ["ExchangeSpans"]

_NAME: Final = "route"
_PICK: Final = "pick"
_SERVER_ERROR: Final = 500
# Refusals that are the client's doing.
_ITS_OWN_FAULT: Final = frozenset(
    {
        Outcome.REFUSED_BAD_REQUEST,
        Outcome.REFUSED_TOO_LARGE,
        Outcome.REFUSED_TOO_MANY_HEADERS,
        Outcome.REFUSED_UNKNOWN_STRATEGY,
    }
)
_WELL: Final = frozenset({Outcome.ROUTED, Outcome.UNDECIDED, Outcome.RESPONSE_ONLY})


class ExchangeSpans:
    """An observer of exchanges. `clock` is theirs.

    Names are OpenTelemetry's, for HTTP and generative AI, where it has one. The model is the catalog's name.
    """

    def __init__(self, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._tracing: Final = tracing
        self._clock: Final = clock

    def __call__(self, record: ExchangeRecord) -> None:
        whole = Stretch(_NAME, record.opened, self._clock(), _attributes(record), failed=_failed(record))
        parts = (_pick(record),) if record.pick_seconds is not None else ()
        self._tracing.traced(record.traceparent, whole, parts)


def _failed(record: ExchangeRecord) -> bool:
    if record.response_status >= _SERVER_ERROR:
        return True
    return record.outcome not in _WELL and record.outcome not in _ITS_OWN_FAULT


def _pick(record: ExchangeRecord) -> Stretch:
    attributes: dict[str, Attribute] = {}
    if record.strategy:
        attributes["epp_adapter.strategy"] = record.strategy
    if record.cached_tokens is not None:
        attributes["epp_adapter.cached_tokens"] = record.cached_tokens
    for fallback in record.fallbacks:
        attributes[f"epp_adapter.fallback.{fallback.strategy}"] = fallback.fault.value
    began = record.pick_began
    ended = began + (record.pick_seconds or 0.0)
    return Stretch(_PICK, began, ended, attributes, failed=not record.strategy)


def _attributes(record: ExchangeRecord) -> dict[str, Attribute]:
    known: dict[str, Attribute] = {
        "epp_adapter.outcome": record.outcome.value,
        "epp_adapter.termination": record.termination.value,
        "epp_adapter.priority": record.priority,
    }
    optional: dict[str, Attribute] = {
        "epp_adapter.destination": record.destination,
        "epp_adapter.request_id": record.request_id,
        "gen_ai.request.model": record.model,
        "gen_ai.usage.input_tokens": record.token_count,
        "http.response.status_code": record.response_status,
    }
    known |= {name: value for name, value in optional.items() if value}
    if record.usage is not None:
        known["gen_ai.usage.output_tokens"] = record.usage.completion_tokens
    return known
