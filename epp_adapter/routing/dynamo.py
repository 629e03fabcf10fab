"""Strategy `dynamo`: NVIDIA Dynamo's KV router chooses; this module keeps the bookings right.

Choosing books: the router counts the request's tokens and blocks on the worker until it is told that the
prompt is computed (`mark_prefill_complete`) and that the request is over (`free`).

In a disaggregated graph one worker computes the prompt and another generates. Two routers choose, as in
Dynamo's own Endpoint Picker (deploy/inference-gateway/ext-proc, epp.rs): one among the prefill workers, by
cached blocks, and one among the decode workers, by their load of generation alone. The decode worker is told
its prefill worker by header. Unlike Dynamo's, this strategy books the prefill worker too, until the first
token.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.booked_pick import BookedPick
from epp_adapter.routing.dynamo_bookings import Bookings, WorkerChoice, WorkerQuery, WorkerRouter
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from extproc.token_metadata import TokenIds
from extproc.wellknown import (
    DYNAMO_DP_RANK_HEADER,
    DYNAMO_PREFILL_DP_RANK_HEADER,
    DYNAMO_PREFILL_INSTANCE_HEADER,
)

__all__ = ["DynamoStrategy", "QueryRules"]

_NO_IDS: Final = TokenIds(b"")
_MAX_STRICT_PRIORITY: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class QueryRules:
    """How a request becomes a router's query.

    `policy_classes`: the lowest priority of each class of the router's queue; a request below all has none.
    `cache_namespace_header` names the tenant; "" for none. Dynamo's own is x-tenant-id.
    """

    policy_classes: Mapping[str, int] = field(default_factory=dict)
    cache_namespace_header: str = "x-tenant-id"

    def query(self, request: RoutingRequest, allowed: frozenset[int] | None = None) -> WorkerQuery:
        return WorkerQuery(
            token_ids=request.token_ids or _NO_IDS,
            lora_name=request.lora_name,
            cache_namespace=request.headers.get(self.cache_namespace_header, ""),
            # Dynamo's strict priority has no sign; what may be shed is no more urgent than the rest.
            strict_priority=min(max(request.priority, 0), _MAX_STRICT_PRIORITY),
            policy_class=self._policy_class(request.priority),
            allowed=allowed,
        )

    def _policy_class(self, priority: int) -> str:
        reached = [(lowest, name) for name, lowest in self.policy_classes.items() if lowest <= priority]
        return max(reached)[1] if reached else ""


class DynamoStrategy:
    """Asks a KV router, and answers for its candidates only; `prefill` makes the graph a disaggregated one.

    The router does not know the candidates. Where it chooses a worker that is no candidate, the booking is
    freed and NOT_A_CANDIDATE lets the next strategy decide. Without token ids NO_TOKEN_IDS does, except in a
    disaggregated graph: there no other strategy names a prefill worker, so load alone decides.
    """

    def __init__(
        self,
        name: str,
        router: WorkerRouter,
        *,
        prefill: WorkerRouter | None = None,
        rules: QueryRules | None = None,
    ) -> None:
        self.name = name
        self._bookings = Bookings(router)
        self._prefill = None if prefill is None else Bookings(prefill)
        self._rules = rules or QueryRules()

    @property
    def bookings_active(self) -> int:
        """Bookings that are not freed yet, with those that are being made."""
        return self._bookings.active + (0 if self._prefill is None else self._prefill.active)

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> BookedPick:
        if not (request.token_ids or self._prefill):
            raise StrategyError(StrategyFault.NO_TOKEN_IDS, "the request carries no token ids")
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        query = self._rules.query(request)
        if self._prefill is not None:
            return await self._pick_pair(self._prefill, request.request_id, query, candidates)
        endpoint, worker = await self._candidate(request.request_id, query, candidates)
        return BookedPick(
            self.name,
            request.request_id,
            endpoint,
            self._bookings,
            request_headers={DYNAMO_DP_RANK_HEADER: str(worker.dp_rank)},
            cached_tokens=worker.cached_tokens,
        )

    async def _candidate(
        self, booking_id: str, query: WorkerQuery, candidates: Sequence[Endpoint]
    ) -> tuple[Endpoint, WorkerChoice]:
        worker = await self._bookings.book(booking_id, query)
        for endpoint in candidates:
            if endpoint.dynamo_instance_id == worker.worker_id:
                return endpoint, worker
        await self._bookings.release(booking_id)
        raise StrategyError(StrategyFault.NOT_A_CANDIDATE, "the chosen worker is no ready candidate")

    async def _pick_pair(
        self, prefill: Bookings, booking_id: str, query: WorkerQuery, candidates: Sequence[Endpoint]
    ) -> BookedPick:
        computes = await prefill.book(booking_id, query)
        try:
            endpoint, generates = await self._candidate(
                booking_id, replace(query, decode_only=True), candidates
            )
        except (StrategyError, asyncio.CancelledError):
            await prefill.release(booking_id)
            raise
        return BookedPick(
            self.name,
            booking_id,
            endpoint,
            self._bookings,
            request_headers={
                DYNAMO_DP_RANK_HEADER: str(generates.dp_rank),
                DYNAMO_PREFILL_INSTANCE_HEADER: str(computes.worker_id),
                DYNAMO_PREFILL_DP_RANK_HEADER: str(computes.dp_rank),
            },
            cached_tokens=computes.cached_tokens,
            prefill=prefill,
        )

    async def close(self, seconds: float) -> None:
        """Wait until what is being freed is free, `seconds` at most. No pick may be made any more."""
        await self._bookings.close(seconds)
        if self._prefill is not None:
            await self._prefill.close(seconds)
