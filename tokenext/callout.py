"""Tokenization on demand: what the Tokenization RPC does for each prompt, without gRPC."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.token_metadata import TokenRecord
from tokenext.attempt import Attempt
from tokenext.breaker import Breakers
from tokenext.catalog import Catalog
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject
from tokenext.observer import Observer, Outcome
from tokenext.pool import TokenizationPool
from tokenext.tokenization import Clock, Stopwatch, Tokenized
from tokenext.turns import Remembered

__all__ = ["Callout", "Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One HTTP request as somebody else saw it. `model` replaces the body's own; "" keeps it. `split` is the
    body, where it was taken apart already; `traceparent` from `trace_parent`. `block_hashes` False: the
    record needs none.
    """

    path: str
    body: bytes
    model: str = ""
    split: JsonObject | None = None
    traceparent: str = ""
    block_hashes: bool = True


class Callout:
    """Answers with the record that ext_proc would have attached, from the same models, threads and limits.

    Every prompt is reported to the observer, as a request is.
    """

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        pool: TokenizationPool,
        observer: Observer,
        clock: Clock,
        max_body_bytes: int,
        conversations: Remembered | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        self._conversations = conversations
        self._breakers = breakers
        self._catalog = catalog
        self._pool = pool
        self._observer = observer
        self._clock = clock
        self._max_body_bytes = max_body_bytes

    async def answer(
        self, prompts: Sequence[Prompt], *, deadline_seconds: float | None = None
    ) -> list[TokenRecord | SkipReason]:
        """One answer for each prompt, in their order. Never raises for what a prompt holds."""
        return await asyncio.gather(
            *(self.answer_one(prompt, deadline_seconds=deadline_seconds) for prompt in prompts)
        )

    async def answer_one(
        self, prompt: Prompt, *, deadline_seconds: float | None = None
    ) -> TokenRecord | SkipReason:
        """As `answer`, of one prompt."""
        answer = await self.tokenized(prompt, deadline_seconds=deadline_seconds)
        return answer if isinstance(answer, SkipReason) else answer.record

    async def tokenized(
        self, prompt: Prompt, *, deadline_seconds: float | None = None, ids_json: bool = False
    ) -> Tokenized | SkipReason:
        """As `answer_one`, with the ids as JSON where they are wanted so."""
        attempt = Attempt(Stopwatch(self._clock), prompt.split)
        outcome, reason = Outcome.PASSED, ""
        try:
            tokenized = await self._tokenize(prompt, attempt, deadline_seconds, ids_json=ids_json)
        except Declined as declined:
            reason = declined.reason.value
            return declined.reason
        except asyncio.CancelledError:
            reason = SkipReason.CANCELLED.value
            raise
        else:
            outcome, reason = Outcome.TOKENIZED, tokenized.record.reason
            return tokenized
        finally:
            self._observer.exchanged(attempt.record(outcome, reason, traceparent=prompt.traceparent))

    async def _tokenize(
        self, prompt: Prompt, attempt: Attempt, deadline_seconds: float | None, *, ids_json: bool
    ) -> Tokenized:
        if len(prompt.body) > self._max_body_bytes:
            raise Declined(SkipReason.OVERSIZE)
        if not prompt.body:
            raise Declined(SkipReason.NO_BODY)
        return await attempt.tokenize(
            prompt.path.partition("?")[0],
            prompt.body,
            self._catalog(),
            self._pool,
            model_name=prompt.model,
            deadline_seconds=deadline_seconds,
            conversations=self._conversations,
            breakers=self._breakers,
            block_hashes=prompt.block_hashes,
            metadata=False,
            ids_json=ids_json,
        )
