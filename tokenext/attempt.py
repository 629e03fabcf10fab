"""One try at tokenizing a request, whoever asks: from a body's bytes to a record, or to why there is none."""

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tokenext.breaker import Breaker, Breakers
from tokenext.catalog import Catalog, Model
from tokenext.declined import FAULTS, Declined, SkipReason
from tokenext.json_object import JsonObject
from tokenext.observer import OTHER_MODEL, ExchangeRecord, Outcome, Stage
from tokenext.openai import Api, ChatRequest, PromptRequest, parse, read_body
from tokenext.pool import TokenizationPool
from tokenext.tokenization import Stopwatch, Tokenized, tokenize
from tokenext.turns import Remembered

__all__ = ["Attempt"]

_MESSAGE_BYTES: Final = 256  # to render a message takes as long as so many bytes of text
# What is known of a conversation counts a quarter: it takes less, but all of it where a cache has dropped it.
_KNOWN: Final = 4
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_APIS: Final[Mapping[str, Api]] = {api.value: api for api in Api}


@dataclass(slots=True)
class Attempt:
    """What became known of a request so far. Owned by the one call that makes the attempt."""

    watch: Stopwatch
    body: JsonObject | None = None
    model: Model | None = None
    tokenized: Tokenized | None = None

    async def tokenize(
        self,
        path: str,
        text: bytes,
        catalog: Catalog,
        pool: TokenizationPool,
        *,
        model_name: str = "",
        body_replaceable: bool = False,
        deadline_seconds: float | None = None,
        conversations: Remembered | None = None,
        breakers: Breakers | None = None,
        block_hashes: bool = True,
        metadata: bool = True,
        ids_json: bool = False,
    ) -> Tokenized:
        """Raises Declined. `path` has no query; `model_name` takes the place of the body's own. Who has
        split `text` already gives its `body` beforehand. `block_hashes` False: the record needs none;
        `metadata`, `ids_json`: whether it is wanted as it travels, and the ids as JSON.

        `deadline_seconds` counts from when a worker thread is asked for, and only shortens the pool's own.
        """
        if self.body is None:
            self.body = read_body(text, conversations)
        api = _APIS.get(path)
        if api is None:
            raise Declined(SkipReason.NOT_OPENAI_PATH)
        request = parse(api, self.body, conversations)
        name = model_name or request.model
        model = self.model = catalog.find(name)
        self.watch.lap(Stage.PARSE)
        if model is None:
            raise Declined(SkipReason.UNKNOWN_MODEL)
        job = partial(
            tokenize,
            model,
            request,
            self.body,
            body_replaceable=body_replaceable,
            watch=self.watch,
            hashed_for=name if block_hashes else None,
            wants_metadata=metadata,
            wants_json=ids_json,
        )
        running = partial(
            pool.run,
            job,
            deadline_seconds=deadline_seconds,
            inline_bytes=_effort(request, len(text)) if model.engine.quick else None,
        )
        if breakers is None:
            self.tokenized = await running()
        else:
            # Whoever asks for less time than is usual has only itself to blame.
            faults = FAULTS if deadline_seconds is None else FAULTS - {SkipReason.DEADLINE}
            self.tokenized = await self._guarded(breakers.of(model.name), running, faults)
        return self.tokenized

    async def _guarded(
        self,
        breaker: Breaker,
        run: Callable[[], Coroutine[Any, Any, Tokenized]],
        faults: Collection[SkipReason],
    ) -> Tokenized:
        if not breaker.admit(self.watch.now()):
            raise Declined(SkipReason.BREAKER_OPEN)
        failed: bool | None = True  # also by an exception that nobody expects; None: it tells nothing
        try:
            tokenized = await run()
            failed = False
        except Declined as declined:
            failed = True if declined.reason in faults else None
            raise
        except asyncio.CancelledError:
            failed = None
            raise
        finally:
            if failed is None:
                breaker.left(self.watch.now())
            elif failed:
                breaker.failed(self.watch.now())
            else:
                breaker.succeeded()
        return tokenized

    def record(
        self, outcome: Outcome, reason: str, request_id: str = "", traceparent: str = ""
    ) -> ExchangeRecord:
        """The fact it leaves behind. A client may choose `request_id`: it stays if it has the form of one.
        `traceparent` is from `trace_parent`.
        """
        model = OTHER_MODEL if self.model is None else self.model.name
        request_id = request_id if _UUID.fullmatch(request_id) else ""
        seconds = self.watch.taken()
        if self.tokenized is None:
            return ExchangeRecord(
                model,
                outcome,
                reason,
                request_id=request_id,
                traceparent=traceparent,
                began=self.watch.began,
                seconds=seconds,
            )
        return ExchangeRecord(
            model,
            outcome,
            reason,
            engine_exact=self.tokenized.record.engine_exact,
            handed_off=self.tokenized.body is not None,
            prompt_tokens=len(self.tokenized.record.token_ids),
            request_id=request_id,
            traceparent=traceparent,
            began=self.watch.began,
            seconds=seconds,
        )


def _effort(request: PromptRequest, size: int) -> int:
    """How much is to be done, as bytes of a text that nobody has seen. `size` is that of the body."""
    if not isinstance(request, ChatRequest):
        return size
    size += _MESSAGE_BYTES * len(request.messages)
    before = request.turn.before
    if before is None:
        return size
    known = len(before.text) + _MESSAGE_BYTES * len(before.messages)
    return size - known + known // _KNOWN
