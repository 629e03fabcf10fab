"""One request's tokenization from parsed body to token record: what a worker thread does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc import token_metadata
from extproc.token_metadata import Kind, TokenRecord
from extproc.verdict import JsonValue
from tokenext.catalog import Model
from tokenext.declined import Declined, SkipReason
from tokenext.engine import EngineError
from tokenext.handoff import Handoff, give_dynamo
from tokenext.json_object import JsonObject
from tokenext.observer import Stage
from tokenext.openai import ChatRequest, PromptRequest

__all__ = ["Stopwatch", "Tokenized", "tokenize"]

Clock = Callable[[], float]


class Stopwatch:
    """Where the time went. Laps are taken by the event loop, then by a worker thread, then by none.

    A worker that is past its deadline may still take laps, so whoever reads takes a copy (`taken`).
    """

    def __init__(self, clock: Clock) -> None:
        """`clock` gives seconds from any fixed point."""
        self._clock = clock
        self._last = clock()
        self._seconds: Final[dict[Stage, float]] = {}

    def lap(self, stage: Stage) -> None:
        """Book the time since the last lap on a stage."""
        now = self._clock()
        self._seconds[stage] = now - self._last
        self._last = now

    def taken(self) -> dict[Stage, float]:
        """Seconds by stage so far."""
        return self._seconds.copy()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """`metadata` is the record as it travels; `body` is None where nothing is handed over."""

    record: TokenRecord
    metadata: dict[str, JsonValue]
    body: bytes | None


def tokenize(
    model: Model, request: PromptRequest, body: JsonObject, *, body_replaceable: bool, watch: Stopwatch
) -> Tokenized:
    """Render, encode, record, hand over. Raises Declined. Holds no lock and blocks on nothing."""
    watch.lap(Stage.QUEUE)
    if isinstance(request, ChatRequest):
        kind, prompt = Kind.CHAT, model.profile.chat(request)
    else:
        kind, prompt = Kind.COMPLETION, model.profile.completion(request)
    watch.lap(Stage.RENDER)
    try:
        ids = model.engine.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
    except EngineError:
        raise Declined(SkipReason.ENGINE_FAILED) from None
    watch.lap(Stage.ENCODE)
    if not ids:
        raise Declined(SkipReason.EMPTY_PROMPT)
    if model.max_length is not None and len(ids) > model.max_length:
        raise Declined(SkipReason.OVER_LENGTH)
    inexact = prompt.inexact or model.doubt
    record = TokenRecord(
        model=model.name,
        tokenizer_digest=model.digest,
        token_ids=ids,
        kind=kind,
        engine_exact=inexact is None,
        reason="" if inexact is None else inexact.value,
    )
    metadata = token_metadata.encode(record)
    watch.lap(Stage.RECORD)
    handed = None
    if record.engine_exact and body_replaceable and model.handoff is Handoff.DYNAMO:
        handed = give_dynamo(body, ids)
        watch.lap(Stage.HANDOFF)
    return Tokenized(record=record, metadata=metadata, body=handed)
