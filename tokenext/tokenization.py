"""One request's tokenization from parsed body to token record: what a worker thread does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc import token_metadata
from extproc.token_metadata import BYTES_PER_ID, Kind, TokenIds, TokenRecord
from extproc.verdict import JsonValue
from tokenext.catalog import Model
from tokenext.declined import Declined, SkipReason
from tokenext.engine import EngineError
from tokenext.handoff import hand_over
from tokenext.ids_json import ids_as_json
from tokenext.json_object import JsonObject
from tokenext.observer import Stage
from tokenext.openai import ChatRequest, PromptRequest, Side, Truncation
from tokenext.profiles import InexactReason, Prompt
from tokenext.request_fields import is_unicode

__all__ = ["Stopwatch", "Tokenized", "tokenize"]

Clock = Callable[[], float]


class Stopwatch:
    """Where the time went. Laps are taken by the event loop, then by a worker thread, then by none.

    A worker that is past its deadline may still take laps, so whoever reads takes a copy (`taken`).
    """

    def __init__(self, clock: Clock) -> None:
        """`clock` gives seconds from any fixed point."""
        self._clock = clock
        self.began = self._last = clock()
        self._seconds: Final[dict[Stage, float]] = {}

    def now(self) -> float:
        return self._clock()

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
    """`metadata` (the record as it travels) and `ids_json` (a JSON list) are None where nobody wants them,
    `body` is where nothing is handed over.
    """

    record: TokenRecord
    metadata: dict[str, JsonValue] | None
    body: bytes | None
    ids_json: bytes | None = None


def tokenize(
    model: Model,
    request: PromptRequest,
    body: JsonObject,
    *,
    body_replaceable: bool,
    watch: Stopwatch,
    hashed_for: str | None = None,
    wants_metadata: bool = True,
    wants_json: bool = False,
) -> Tokenized:
    """Render, encode, record, hand over. Raises Declined. Holds no lock and blocks on nothing.

    `hashed_for`: whose block hashes the record has, by a name of the model's; None: no hashes are wanted.
    `wants_metadata`: the record as it travels, `wants_json`: the ids as a JSON list.
    """
    watch.lap(Stage.QUEUE)
    if isinstance(request, ChatRequest):
        kind, prompt = Kind.CHAT, model.profile.chat(request)
    else:
        kind, prompt = Kind.COMPLETION, model.profile.completion(request)
    watch.lap(Stage.RENDER)
    ids, inexact = _ids(model, prompt, isolation=request.cache_salt)
    watch.lap(Stage.ENCODE)
    if not ids:
        raise Declined(SkipReason.EMPTY_PROMPT)
    if model.max_length is not None and len(ids) > model.max_length:
        # Good to route by; handed over it might be taken, or refused in other words than the engine's own.
        inexact = inexact or InexactReason.OVER_LENGTH
    inexact = inexact or model.doubt
    blocks = None
    if hashed_for is not None:
        blocks = model.block_hashes(ids, name=hashed_for, cache_salt=request.cache_salt)
    record = TokenRecord(
        model=model.name,
        tokenizer_digest=model.digest,
        token_ids=ids,
        kind=kind,
        engine_exact=inexact is None,
        reason="" if inexact is None else inexact.value,
        block_hashes=blocks,
    )
    metadata = token_metadata.encode(record) if wants_metadata else None
    watch.lap(Stage.RECORD)
    turn = request.turn if isinstance(request, ChatRequest) else None
    spell = ids_as_json if turn is None else turn.ids_json
    handed = None
    # A client's own ids need no hand-over: the engine has nothing to tokenize.
    if record.engine_exact and body_replaceable and prompt.ids is None:
        handed = hand_over(model.handoff, body, record, strip_messages=model.strip_messages, ids_json=spell)
    told = spell(ids) if wants_json else None
    if turn is not None:
        turn.keep()
    if handed is not None:
        watch.lap(Stage.HANDOFF)
    return Tokenized(record=record, metadata=metadata, body=handed, ids_json=told)


def _ids(model: Model, prompt: Prompt, *, isolation: str) -> tuple[TokenIds, InexactReason | None]:
    """The prompt's ids, and why they are not proved. Raises Declined."""
    ids = prompt.ids
    if ids is None:
        ids = _encode(model, prompt, add_special_tokens=prompt.add_special_tokens, isolation=isolation)
    if prompt.truncation is None:
        return ids, prompt.inexact
    kept = _truncated(model, prompt, prompt.truncation, ids, isolation=isolation)
    return (ids, prompt.inexact or InexactReason.TRUNCATION) if kept is None else (kept, prompt.inexact)


def _encode(model: Model, prompt: Prompt, *, add_special_tokens: bool, isolation: str) -> TokenIds:
    try:
        return model.engine.encode(prompt.text, add_special_tokens=add_special_tokens, isolation=isolation)
    except EngineError:
        # Half of a surrogate pair, which a template may make of a tool call's arguments, is the client's
        # doing, and no reason to open the model's breaker.
        reason = SkipReason.ENGINE_FAILED if is_unicode(prompt.text) else SkipReason.INVALID_JSON
        raise Declined(reason) from None


def _truncated(
    model: Model, prompt: Prompt, truncation: Truncation, ids: TokenIds, *, isolation: str
) -> TokenIds | None:
    """The ids that vLLM keeps (renderers/params.py), or None where that cannot be told.

    Without a side it is the tokenizer that truncates, on the left, and it spares the special tokens that it
    adds: then only a tokenizer that adds none is clear.
    """
    keep = truncation.keep
    if keep < 0:
        # As many as the model takes, less one for the answer, unless none is wanted.
        longest = None if model.max_length is None else model.max_length - 1
        return ids if longest is not None and len(ids) <= longest else None
    if len(ids) <= keep:
        return ids
    if truncation.side is None and prompt.ids is None and prompt.add_special_tokens:
        bare = _encode(model, prompt, add_special_tokens=False, isolation=isolation)
        if bare != ids:
            return None
    size = keep * BYTES_PER_ID
    return TokenIds(ids.packed[:size] if truncation.side is Side.RIGHT else ids.packed[-size:])
