"""One request on one ext_proc stream: from its body to a Verdict with the token record."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from extproc.errors import BodyTooLargeError
from extproc.events import Headers, RequestReady, ResponseEvent, Termination
from extproc.verdict import NO_EDIT, PASS, ResponseEdit, Verdict
from extproc.wellknown import RECORD_KEY, REQUEST_ID_HEADER
from tokenext.catalog import Catalog, Model
from tokenext.declined import Declined, SkipReason
from tokenext.handoff import strip
from tokenext.json_object import JsonObject
from tokenext.observer import OTHER_MODEL, ExchangeRecord, Observer, Outcome, Stage
from tokenext.openai import GUARDED_PATHS, Api, parse, read_body
from tokenext.pool import TokenizationPool
from tokenext.tokenization import Clock, Stopwatch, Tokenized, tokenize

__all__ = ["ExchangeOptions", "OnOversize", "TokenizeExchange"]

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_APIS: Final[Mapping[str, Api]] = {api.value: api for api in Api}


class OnOversize(StrEnum):
    """What happens to a body over the limit."""

    PASS = "pass"  # noqa: S105  # it goes on untokenized
    REJECT = "reject"  # the client gets a 413


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    metadata_namespace: str
    on_oversize: OnOversize


class TokenizeExchange:
    """Tokenizes what it can and lets everything pass; only an oversize body may be refused.

    An extproc Exchange. It holds nothing between calls, so that closing it frees nothing.
    """

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        pool: TokenizationPool,
        observer: Observer,
        options: ExchangeOptions,
        clock: Clock,
    ) -> None:
        """`catalog` gives the catalog of the moment: a reload shows in the next request."""
        self._catalog = catalog
        self._pool = pool
        self._observer = observer
        self._options = options
        self._clock = clock

    async def decide(self, request: RequestReady) -> Verdict:
        """Tokenize a request. Raises BodyTooLargeError where oversize bodies are to be refused."""
        attempt = _Attempt(Stopwatch(self._clock))
        outcome, reason = Outcome.PASSED, ""
        try:
            tokenized = await self._tokenize(request, attempt)
        except Declined as declined:
            reason = declined.reason.value
            return self._passing(request, attempt)
        except BodyTooLargeError as error:
            outcome, reason = Outcome.REJECTED, error.reason.value
            raise
        except asyncio.CancelledError:
            reason = SkipReason.CANCELLED.value
            raise
        else:
            outcome, reason = Outcome.TOKENIZED, tokenized.record.reason
            attempt.tokenized = tokenized
            return self._verdict(request, attempt, tokenized)
        finally:
            self._observer.exchanged(attempt.record(outcome, reason, request.headers))

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        del event
        return NO_EDIT

    async def observe(self, event: ResponseEvent) -> None:
        pass

    async def close(self, termination: Termination) -> None:
        pass

    async def _tokenize(self, request: RequestReady, attempt: "_Attempt") -> Tokenized:
        path = request.headers.path
        if request.headers.method != "POST" or path not in GUARDED_PATHS:
            raise Declined(SkipReason.NOT_OPENAI_PATH)
        if request.oversize:
            if self._options.on_oversize is OnOversize.REJECT:
                raise BodyTooLargeError("the request body is larger than this gateway tokenizes")
            raise Declined(SkipReason.OVERSIZE)
        if not request.body:
            raise Declined(SkipReason.NO_BODY)
        body = attempt.body = read_body(request.body)
        api = _APIS.get(path)
        if api is None:
            raise Declined(SkipReason.NOT_OPENAI_PATH)
        prompt_request = parse(api, body)
        model = attempt.model = self._catalog().find(prompt_request.model)
        attempt.watch.lap(Stage.PARSE)
        if model is None:
            raise Declined(SkipReason.UNKNOWN_MODEL)
        return await self._pool.run(
            partial(
                tokenize,
                model,
                prompt_request,
                body,
                body_replaceable=request.body_replaceable,
                watch=attempt.watch,
            )
        )

    def _passing(self, request: RequestReady, attempt: "_Attempt") -> Verdict:
        """Let the request pass, without the fields that only the chain may set."""
        body = _stripped(request, attempt.body)
        return PASS if body is None else Verdict(body=body)

    def _verdict(self, request: RequestReady, attempt: "_Attempt", tokenized: Tokenized) -> Verdict:
        body = tokenized.body
        return Verdict(
            body=_stripped(request, attempt.body) if body is None else body,
            metadata={self._options.metadata_namespace: {RECORD_KEY: tokenized.metadata}},
        )


@dataclass(slots=True)
class _Attempt:
    """What became known of a request so far. Owned by one call of `decide`."""

    watch: Stopwatch
    body: JsonObject | None = None
    model: Model | None = None
    tokenized: Tokenized | None = None

    def record(self, outcome: Outcome, reason: str, headers: Headers) -> ExchangeRecord:
        model = OTHER_MODEL if self.model is None else self.model.name
        request_id = headers.get(REQUEST_ID_HEADER, "")
        # A client may choose the id, so only what has the form of one is kept.
        request_id = request_id if _UUID.fullmatch(request_id) else ""
        seconds = self.watch.taken()
        if self.tokenized is None:
            return ExchangeRecord(model, outcome, reason, request_id=request_id, seconds=seconds)
        return ExchangeRecord(
            model,
            outcome,
            reason,
            engine_exact=self.tokenized.record.engine_exact,
            handed_off=self.tokenized.body is not None,
            prompt_tokens=len(self.tokenized.record.token_ids),
            request_id=request_id,
            seconds=seconds,
        )


def _stripped(request: RequestReady, body: JsonObject | None) -> bytes | None:
    """The body without chain-owned fields where that changes it and may be done, else None."""
    if body is None or not request.body_replaceable:
        return None
    text = strip(body)
    return None if text is body.text else text
