"""The one fact an exchange leaves behind, and who may want it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from tokenext.declined import TROUBLE

__all__ = ["OTHER_MODEL", "ExchangeRecord", "Observer", "Outcome", "RecordingObserver", "Stage"]

_TROUBLE: Final = frozenset(reason.value for reason in TROUBLE)
OTHER_MODEL: Final = "other"  # for every model that the catalog does not name


class Outcome(StrEnum):
    TOKENIZED = "tokenized"  # a token record was attached
    PASSED = "passed"  # the request went on without one
    REJECTED = "rejected"  # the client got an answer from us


class Stage(StrEnum):
    """What the time goes to, in order."""

    PARSE = "parse"  # body to request, on the event loop
    QUEUE = "queue"  # waiting for a worker thread
    RENDER = "render"  # chat template
    ENCODE = "encode"  # tokenizer
    RECORD = "record"  # token record to metadata
    HANDOFF = "handoff"  # ids into the body

    __hash__ = str.__hash__  # an enum's own is written in Python


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """How one request fared; holds nothing that a client chose.

    `model` is a catalog name or OTHER_MODEL. `reason` is a SkipReason or a refusal's reason where nothing was
    attached, an InexactReason where `engine_exact` is False, else empty. `request_id` is set only where the
    client's x-request-id is a UUID, `traceparent` where the client's has the form of one. `seconds` holds the
    stages that were reached, in their order, the first of which began at `began` of the exchange's clock.
    """

    model: str
    outcome: Outcome
    reason: str = ""
    engine_exact: bool = False
    handed_off: bool = False
    prompt_tokens: int = 0
    request_id: str = ""
    traceparent: str = ""
    began: float = 0.0
    seconds: Mapping[Stage, float] = field(default_factory=dict)

    @property
    def troubled(self) -> bool:
        """It did not go as it should, whoever is to blame: the client got an error, or what could have been
        tokenized was not.
        """
        return self.outcome is Outcome.REJECTED or self.reason in _TROUBLE


class Observer(Protocol):
    def exchanged(self, record: ExchangeRecord) -> None:
        """Take note of an exchange. Called on the event loop, so it must be quick; never raises."""
        ...


class RecordingObserver:
    """Keeps what it is told: the fake of the seam."""

    def __init__(self) -> None:
        self.records: list[ExchangeRecord] = []

    def exchanged(self, record: ExchangeRecord) -> None:
        self.records.append(record)
