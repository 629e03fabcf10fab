"""Bookings: what a router of Dynamo's counts on a worker until it is told that the request is over.

A booking nobody frees distorts every later choice, so each has one owner, `Bookings`, that frees it exactly
once. That also holds where a pick is cancelled while the router is choosing: a cancelled call into Dynamo may
have booked or not, so the call is never cancelled. It runs on and its booking is freed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from epp_adapter.routing.strategy import StrategyError, StrategyFault
from extproc.token_metadata import TokenIds

__all__ = ["Bookings", "FakeWorkerRouter", "WorkerChoice", "WorkerQuery", "WorkerRouter"]

_log = logging.getLogger(__name__)

# Calls that outlive their pick. Dynamo answers in under a millisecond, so this many means it hangs.
MAX_ABANDONED: Final = 256


@dataclass(frozen=True, slots=True)
class WorkerQuery:
    """What a worker is chosen by.

    No token ids: by load alone. `cache_namespace` keeps the cached blocks of tenants apart (Dynamo's
    cache_salt). `strict_priority` (0 or more, the highest first) and `policy_class` order a router's queue,
    if it has one. `decode_only`: another worker computes the prompt, so neither cached blocks nor waiting
    prompts count. `allowed`: only these workers, for routers that can be told so; None: all.
    """

    token_ids: TokenIds
    lora_name: str = ""
    cache_namespace: str = ""
    strict_priority: int = 0
    policy_class: str = ""
    decode_only: bool = False
    allowed: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """`dp_rank`: which data-parallel engine of the worker. `cached_tokens`: how many of the prompt's leading
    tokens it holds already.
    """

    worker_id: int
    dp_rank: int
    cached_tokens: int


class WorkerRouter(Protocol):
    """Dynamo's KvRouter or SelectionService, as far as we need them; they raise StrategyError, nothing else.

    Cancelling a call leaves open whether it took effect.
    """

    async def best_worker(self, booking_id: str, query: WorkerQuery) -> WorkerChoice:
        """Choose a worker and book the request on it; nothing is booked if this raises."""
        ...

    async def mark_prefill_complete(self, booking_id: str) -> None: ...

    async def free(self, booking_id: str) -> None: ...


class Bookings:
    """Owns the bookings of one router."""

    def __init__(self, router: WorkerRouter) -> None:
        self._router = router
        self._held: set[str] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._freeing = 0
        self._ended = asyncio.Event()  # something that is waited for at the close

    @property
    def active(self) -> int:
        """Bookings that are not freed yet, with those that are being made."""
        return len(self._held)

    async def book(self, booking_id: str, query: WorkerQuery) -> WorkerChoice:
        """Choose and book. If this raises, or is cancelled, the booking is freed or was never made."""
        if len(self._abandoned) >= MAX_ABANDONED:
            raise StrategyError(StrategyFault.OVERLOADED, "Dynamo's router does not answer")
        self._held.add(booking_id)
        choosing = asyncio.create_task(self._router.best_worker(booking_id, query))
        try:
            return await asyncio.shield(choosing)
        except asyncio.CancelledError:
            self._own(self._free_once_booked(booking_id, choosing), self._abandoned)
            raise
        except StrategyError:
            self._held.discard(booking_id)
            raise

    async def _free_once_booked(self, booking_id: str, choosing: asyncio.Task[WorkerChoice]) -> None:
        try:
            await choosing
        except StrategyError:
            self._held.discard(booking_id)
        else:
            await self._free(booking_id)

    async def mark_prefill_complete(self, booking_id: str) -> None:
        try:
            await self._router.mark_prefill_complete(booking_id)
        except StrategyError as error:
            _log.info("a booking was not marked: %s", error)

    async def release(self, booking_id: str) -> None:
        """Free a booking, if it is held. Cancelling this stops the waiting, not the freeing."""
        try:
            await self._free(booking_id)
        except asyncio.CancelledError:
            # Freed or not, nobody knows: once more, on its own. A task for every release would cost more.
            self.begin_release(booking_id)
            raise

    def begin_release(self, booking_id: str) -> asyncio.Task[None]:
        """Free a booking, if it is held: begun when this returns, done when the task is. Never cancel it."""
        return self._own(self._free(booking_id), self._releases)

    async def _free(self, booking_id: str) -> None:
        if booking_id not in self._held:
            return
        self._freeing += 1
        try:
            await self._router.free(booking_id)
        except StrategyError as error:
            # Dynamo forgets a booking after DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS, and with its worker.
            _log.info("a booking was gone before it was freed: %s", error)
        finally:
            self._freeing -= 1
            self._ended.set()
        self._held.discard(booking_id)

    async def close(self, seconds: float) -> None:
        """Wait until what is being freed is free, `seconds` at most. Nothing may be booked any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._freeing or self._abandoned or self._releases:
                    self._ended.clear()
                    await self._ended.wait()

    def _own(self, work: Coroutine[Any, Any, None], owner: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        def ended(task: asyncio.Task[None]) -> None:
            owner.discard(task)
            self._ended.set()

        task = asyncio.create_task(work)
        owner.add(task)
        task.add_done_callback(ended)
        return task


class FakeWorkerRouter:
    """Chooses workers in turn and keeps the books: the fake of the seam above.

    `gate` holds every choice back until it is set; then bookings are made even for callers that left, as in
    Dynamo. It heeds `allowed`.
    """

    def __init__(self, *worker_ids: int, error: StrategyError | None = None) -> None:
        self.worker_ids = worker_ids
        self.error = error
        self.gate: asyncio.Event | None = None
        self.queries: list[WorkerQuery] = []
        self.booked: dict[str, WorkerChoice] = {}
        self.prefilled: list[str] = []
        self.freed: list[str] = []
        self._choices = 0

    async def best_worker(self, booking_id: str, query: WorkerQuery) -> WorkerChoice:
        self.queries.append(query)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        among = [each for each in self.worker_ids if query.allowed is None or each in query.allowed]
        if not among:
            raise StrategyError(StrategyFault.NO_WORKERS, "no worker is known")
        if booking_id in self.booked:
            raise StrategyError(StrategyFault.FAILED, "this id is booked already")
        worker = among[self._choices % len(among)]
        self._choices += 1
        self.booked[booking_id] = WorkerChoice(worker, dp_rank=0, cached_tokens=min(16, len(query.token_ids)))
        return self.booked[booking_id]

    async def mark_prefill_complete(self, booking_id: str) -> None:
        self._known(booking_id)
        self.prefilled.append(booking_id)

    async def free(self, booking_id: str) -> None:
        self._known(booking_id)
        del self.booked[booking_id]
        self.freed.append(booking_id)

    def _known(self, booking_id: str) -> None:
        if booking_id not in self.booked:
            raise StrategyError(StrategyFault.FAILED, "this id is not booked")
