"""Strategy `dynamo`: NVIDIA Dynamo's KV router chooses; this module keeps the booking right.

Choosing books: the router counts the request's tokens and blocks on the worker until it is told that the
prompt is computed (`mark_prefill_complete`) and that the request is over (`free`). A booking nobody frees
distorts every later choice, so whoever starts one hands it to this strategy, which frees it exactly once.
That also holds where a pick is cancelled while the router is choosing: a cancelled call into Dynamo may have
booked or not, so the call is never cancelled. It runs on and its booking is freed.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from epp_adapter.endpoints import Destination, Endpoint
from epp_adapter.routing.strategy import Fallback, RoutingRequest, StrategyError, StrategyFault
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from extproc.wellknown import DYNAMO_DP_RANK_HEADER

__all__ = ["DynamoStrategy", "FakeWorkerRouter", "WorkerChoice", "WorkerRouter"]

_log = logging.getLogger(__name__)

# Calls that outlive their pick. Dynamo answers in under a millisecond, so this many means it hangs.
MAX_ABANDONED: Final = 256


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """`dp_rank`: which data-parallel engine of the worker. `cached_blocks`: the prompt's leading blocks that
    it holds already.
    """

    instance_id: int
    dp_rank: int
    cached_blocks: int


class WorkerRouter(Protocol):
    """Dynamo's KvRouter, as far as this strategy needs it. All three raise StrategyError and nothing else.

    Cancelling a call leaves open whether it took effect.
    """

    async def best_worker(self, booking_id: str, token_ids: TokenIds) -> WorkerChoice:
        """Choose a worker and book the request on it; nothing is booked if this raises."""
        ...

    async def mark_prefill_complete(self, booking_id: str) -> None: ...

    async def free(self, booking_id: str) -> None: ...


class DynamoStrategy:
    """Owns the bookings of one router. Needs token ids and answers for its candidates only.

    The router does not know the candidates. Where it chooses a worker that is no candidate, the booking is
    freed and NOT_A_CANDIDATE lets the next strategy decide.
    """

    def __init__(self, name: str, router: WorkerRouter, *, block_size: int) -> None:
        self.name = name
        self._router = router
        self.block_size = block_size
        self._held: set[str] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()

    @property
    def bookings_active(self) -> int:
        """Bookings that are not freed yet, with those that are being made."""
        return len(self._held)

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> "_DynamoPick":
        if not request.token_ids:
            raise StrategyError(StrategyFault.NO_TOKEN_IDS, "the request carries no token ids")
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        worker = await self._book(request.request_id, request.token_ids)
        for endpoint in candidates:
            if endpoint.dynamo_instance_id == worker.instance_id:
                return _DynamoPick(self, request.request_id, endpoint, worker)
        await self.release(request.request_id)
        raise StrategyError(StrategyFault.NOT_A_CANDIDATE, "the chosen worker is no ready candidate")

    async def _book(self, booking_id: str, token_ids: TokenIds) -> WorkerChoice:
        if len(self._abandoned) >= MAX_ABANDONED:
            raise StrategyError(StrategyFault.OVERLOADED, "Dynamo's router does not answer")
        self._held.add(booking_id)
        choosing = asyncio.create_task(self._router.best_worker(booking_id, token_ids))
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
        """Free a booking. Cancelling this stops the waiting, not the freeing."""
        await asyncio.shield(self._own(self._free(booking_id), self._releases))

    async def _free(self, booking_id: str) -> None:
        try:
            await self._router.free(booking_id)
        except StrategyError as error:
            # Dynamo forgets a booking after DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS, and with its worker.
            _log.info("a booking was gone before it was freed: %s", error)
        finally:
            self._held.discard(booking_id)

    async def close(self, seconds: float) -> None:
        """Wait until what is being freed is free, `seconds` at most. No pick may be made any more."""
        if pending := self._abandoned | self._releases:
            await asyncio.wait(pending, timeout=seconds)

    @staticmethod
    def _own(work: Coroutine[Any, Any, None], owner: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        owner.add(task)
        task.add_done_callback(owner.discard)
        return task


class _DynamoPick:
    def __init__(
        self, owner: DynamoStrategy, booking_id: str, endpoint: Endpoint, worker: WorkerChoice
    ) -> None:
        self._owner = owner
        self._booking_id = booking_id
        self._prefilled = False
        self._finished = False
        self.strategy = owner.name
        self.destination = Destination((endpoint,))
        self.request_headers: Mapping[str, str] = {DYNAMO_DP_RANK_HEADER: str(worker.dp_rank)}
        self.response_headers: Mapping[str, str] = {}
        self.cached_tokens: int | None = worker.cached_blocks * owner.block_size
        self.fallbacks: tuple[Fallback, ...] = ()

    async def first_token(self) -> None:
        if not (self._prefilled or self._finished):
            self._prefilled = True
            await self._owner.mark_prefill_complete(self._booking_id)

    async def finished(self, termination: Termination) -> None:
        del termination
        if not self._finished:
            self._finished = True
            await self._owner.release(self._booking_id)


class FakeWorkerRouter:
    """Chooses instances in turn and keeps the books: the fake of the seam above.

    `gate` holds every choice back until it is set; then bookings are made even for callers that left, as in
    Dynamo.
    """

    def __init__(self, *instance_ids: int, error: StrategyError | None = None) -> None:
        self.instance_ids = instance_ids
        self.error = error
        self.gate: asyncio.Event | None = None
        self.booked: dict[str, WorkerChoice] = {}
        self.prefilled: list[str] = []
        self.freed: list[str] = []
        self._choices = 0

    async def best_worker(self, booking_id: str, token_ids: TokenIds) -> WorkerChoice:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if not self.instance_ids:
            raise StrategyError(StrategyFault.NO_WORKERS, "no worker is known")
        if booking_id in self.booked:
            raise StrategyError(StrategyFault.FAILED, "this id is booked already")
        instance = self.instance_ids[self._choices % len(self.instance_ids)]
        self._choices += 1
        self.booked[booking_id] = WorkerChoice(instance, dp_rank=0, cached_blocks=min(1, len(token_ids)))
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
