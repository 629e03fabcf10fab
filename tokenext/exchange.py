"""One request on one ext_proc stream: from its body to a Verdict with the token record."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from extproc.errors import BodyTooLargeError
from extproc.events import RequestReady, ResponseEvent, Termination
from extproc.tracing import trace_parent
from extproc.verdict import NO_EDIT, PASS, ResponseEdit, Verdict
from extproc.wellknown import RECORD_KEY, REQUEST_ID_HEADER
from tokenext.attempt import Attempt
from tokenext.breaker import Breakers
from tokenext.catalog import Catalog
from tokenext.declined import Declined, SkipReason
from tokenext.handoff import strip
from tokenext.json_object import JsonObject
from tokenext.observer import Observer, Outcome
from tokenext.openai import GUARDED_PATHS, read_body
from tokenext.pool import TokenizationPool
from tokenext.tokenization import Clock, Stopwatch, Tokenized
from tokenext.turns import Remembered

__all__ = ["ExchangeOptions", "OnOversize", "TokenizeExchange"]


class OnOversize(StrEnum):
    """What happens to a body over the limit."""

    PASS = "pass"  # noqa: S105  # it goes on untokenized
    REJECT = "reject"  # the client gets a 413


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """A request of more than `max_headers` header lines is not tokenized."""

    metadata_namespace: str
    on_oversize: OnOversize
    max_headers: int = 256


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
        conversations: Remembered | None = None,
        breakers: Breakers | None = None,
    ) -> None:
        """`catalog` gives the catalog of the moment: a reload shows in the next request."""
        self._conversations = conversations
        self._breakers = breakers
        self._catalog = catalog
        self._pool = pool
        self._observer = observer
        self._options = options
        self._clock = clock

    async def decide(self, request: RequestReady) -> Verdict:
        """Tokenize a request. Raises BodyTooLargeError where oversize bodies are to be refused."""
        attempt = Attempt(Stopwatch(self._clock))
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
            return self._verdict(request, attempt, tokenized)
        finally:
            headers = request.headers
            request_id = headers.get(REQUEST_ID_HEADER, "")
            self._observer.exchanged(attempt.record(outcome, reason, request_id, trace_parent(headers)))

    def edit(self, event: ResponseEvent) -> ResponseEdit:
        del event
        return NO_EDIT

    async def observe(self, event: ResponseEvent) -> None:
        pass

    async def close(self, termination: Termination) -> None:
        pass

    async def _tokenize(self, request: RequestReady, attempt: Attempt) -> Tokenized:
        path = request.headers.path
        if request.headers.method != "POST" or path not in GUARDED_PATHS:
            raise Declined(SkipReason.NOT_OPENAI_PATH)
        if request.oversize:
            if self._options.on_oversize is OnOversize.REJECT:
                raise BodyTooLargeError("the request body is larger than this gateway tokenizes")
            raise Declined(SkipReason.OVERSIZE)
        if not request.body:
            raise Declined(SkipReason.NO_BODY)
        if request.headers.lines > self._options.max_headers:
            attempt.body = read_body(request.body)  # or headers would bring the chain's own fields past us
            raise Declined(SkipReason.TOO_MANY_HEADERS)
        return await attempt.tokenize(
            path,
            request.body,
            self._catalog(),
            self._pool,
            body_replaceable=request.body_replaceable,
            conversations=self._conversations,
            breakers=self._breakers,
        )

    def _passing(self, request: RequestReady, attempt: Attempt) -> Verdict:
        """Let the request pass, without the fields that only the chain may set."""
        body = _stripped(request, attempt.body)
        return PASS if body is None else Verdict(body=body)

    def _verdict(self, request: RequestReady, attempt: Attempt, tokenized: Tokenized) -> Verdict:
        body = tokenized.body
        return Verdict(
            body=_stripped(request, attempt.body) if body is None else body,
            metadata={self._options.metadata_namespace: {RECORD_KEY: tokenized.metadata}},
        )


def _stripped(request: RequestReady, body: JsonObject | None) -> bytes | None:
    """The body without chain-owned fields where that changes it and may be done, else None."""
    if body is None or not request.body_replaceable:
        return None
    text = strip(body)
    return None if text is body.text else text
