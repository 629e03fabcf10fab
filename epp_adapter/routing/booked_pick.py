"""The pick of a strategy that books: its bookings end exactly once."""

import asyncio
from collections.abc import Mapping

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.dynamo_bookings import Bookings
from epp_adapter.routing.strategy import NO_FALLBACKS
from extproc.events import Termination

__all__ = ["BookedPick"]


class BookedPick:
    """One booking, or two under one id: that of a prefill worker ends with the first token."""

    def __init__(
        self,
        strategy: str,
        booking_id: str,
        endpoint: Endpoint,
        bookings: Bookings,
        *,
        request_headers: Mapping[str, str],
        cached_tokens: int,
        prefill: Bookings | None = None,
    ) -> None:
        self._booking_id = booking_id
        self._bookings = bookings
        self._prefill = prefill
        self._prefilled = False
        self._finished = False
        self.strategy = strategy
        self.destination = Destination((endpoint,))
        self.request_headers = request_headers
        self.response_headers: Mapping[str, str] = {}
        self.cached_tokens: int | None = cached_tokens
        self.fallbacks = NO_FALLBACKS

    async def first_token(self) -> None:
        if self._prefilled or self._finished:
            return
        self._prefilled = True
        if self._prefill is None:
            await self._bookings.mark_prefill_complete(self._booking_id)
        else:
            await self._prefill.release(self._booking_id)

    async def finished(self, termination: Termination) -> None:
        del termination
        if self._finished:
            return
        self._finished = True
        if self._prefill is None or self._prefilled:
            await self._bookings.release(self._booking_id)
            return
        each = (self._bookings, self._prefill)
        await asyncio.shield(asyncio.gather(*(books.begin_release(self._booking_id) for books in each)))
