"""Exchanges as spans: `tokenize`, and below it one for each stage that was reached."""

from collections.abc import Callable
from typing import Final

from extproc.tracing import Attribute, Stretch, Tracing
from tokenext.declined import FAULTS
from tokenext.observer import ExchangeRecord, Outcome

__all__ = ["ExchangeSpans"]

_NAME: Final = "tokenize"
_FAULTS: Final = frozenset(reason.value for reason in FAULTS)


class ExchangeSpans:
    """An observer of exchanges. `clock` is the one that their stages were taken with.

    Names are OpenTelemetry's for generative AI where it has one. The model is the catalog's name.
    """

    def __init__(self, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._tracing: Final = tracing
        self._clock: Final = clock

    def exchanged(self, record: ExchangeRecord) -> None:
        stages: list[Stretch] = []
        at = record.began
        for stage, seconds in record.seconds.items():  # one begins where the one before it ends
            stages.append(Stretch(stage.value, at, at + seconds))
            at += seconds
        whole = Stretch(
            _NAME, record.began, self._clock(), _attributes(record), failed=record.reason in _FAULTS
        )
        self._tracing.traced(record.traceparent, whole, stages)


def _attributes(record: ExchangeRecord) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "gen_ai.request.model": record.model,
        "tokenext.outcome": record.outcome.value,
    }
    if record.reason:
        attributes["tokenext.reason"] = record.reason
    if record.request_id:
        attributes["tokenext.request_id"] = record.request_id
    if record.outcome is Outcome.TOKENIZED:
        attributes["gen_ai.usage.input_tokens"] = record.prompt_tokens
        attributes["tokenext.engine_exact"] = record.engine_exact
        attributes["tokenext.handed_off"] = record.handed_off
    return attributes
