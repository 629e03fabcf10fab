"""Dynamo's SelectionService in this process, behind `CatalogRouter`.

Built on ai-dynamo-runtime 1.6.1. Which fields it reads: lib/kv-router/src/services/selection/types.rs. It
raises SelectionServiceError with a sentence, at the call or when awaited.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dynamo.llm import SelectionService

from epp_adapter.routing.dynamo_bookings import WorkerChoice, WorkerQuery
from epp_adapter.routing.selection import PoolWorker
from epp_adapter.routing.strategy import StrategyError, StrategyFault

__all__ = ["SelectionClient", "SelectionOptions"]

# Sentences of 1.6.1 (lib/kv-router) that tell a fault; what is not here is FAILED.
_NO_WORKERS: Final = ("no endpoints available", "no schedulable workers")
_QUEUE_FULL: Final = "queue"
# One pool, one catalog: the same name in every adapter, so that they understand each other.
_POOL: Final = "pool"


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """`overrides` go with every request. The ports and peers ("tcp://ip:port") are those of replica sync."""

    block_size: int
    data_parallel_size: int = 1
    indexer_threads: int = 4
    replica_sync_port: int | None = None
    replica_sync_peers: tuple[str, ...] = ()
    overrides: Mapping[str, float] = field(default_factory=dict)


class SelectionClient:
    """Owns a SelectionService, and with it the subscriptions to the workers' events."""

    def __init__(self, options: SelectionOptions) -> None:
        """Must be called where an event loop runs. Raises StrategyError."""
        self._options = options
        try:
            self._service = SelectionService(
                indexer_threads=options.indexer_threads,
                replica_sync_port=options.replica_sync_port,
                replica_sync_peers=list(options.replica_sync_peers) or None,
            )
        except Exception as error:
            raise StrategyError(StrategyFault.FAILED, f"Dynamo's selection service: {error}") from error

    async def upsert(self, worker: PoolWorker) -> None:
        record: dict[str, object] = {
            "worker_id": worker.worker_id,
            "model_name": _POOL,
            "endpoint": f"http://{worker.address}",
            "block_size": self._options.block_size,
            "data_parallel_size": self._options.data_parallel_size,
            "kv_events_endpoints": dict(worker.kv_events),
        }
        if worker.replay is not None:
            record["replay_endpoint"] = worker.replay
        await _translated(lambda: self._service.upsert_worker(record))

    async def delete(self, worker_id: int) -> None:
        await _translated(lambda: self._service.delete_worker(worker_id))

    async def best_worker(self, booking_id: str, query: WorkerQuery) -> WorkerChoice:
        request: dict[str, object] = {
            "model_name": _POOL,
            "selection_id": booking_id,
            "token_ids": query.token_ids.as_array(),
            "strict_priority": query.strict_priority,
        }
        if query.allowed is not None:
            request["allowed_worker_ids"] = list(query.allowed)
        if query.lora_name:
            request["lora_name"] = query.lora_name
        if query.cache_namespace:
            request["cache_salt"] = query.cache_namespace
        if self._options.overrides:
            request["router_config_override"] = dict(self._options.overrides)
        answer = await _translated(lambda: self._service.select_and_reserve(request))
        return WorkerChoice(answer["worker_id"], answer["dp_rank"], answer["overlap"]["longest_matched"])

    async def mark_prefill_complete(self, booking_id: str) -> None:
        await _translated(lambda: self._service.prefill_complete(booking_id))

    async def free(self, booking_id: str) -> None:
        await _translated(lambda: self._service.free_reservation(booking_id))

    def bookings(self) -> int:
        """How many requests Dynamo itself counts, over all workers."""
        return sum(load["active_requests"] for pool in self._service.loads() for load in pool["loads"])

    def shutdown(self) -> None:
        """End the subscriptions. Nothing else may be called any more."""
        self._service.shutdown()


async def _translated(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        return await call()
    except Exception as error:
        sentence = str(error)
        if any(words in sentence for words in _NO_WORKERS):
            raise StrategyError(StrategyFault.NO_WORKERS, f"Dynamo: {error}") from None
        fault = StrategyFault.OVERLOADED if _QUEUE_FULL in sentence else StrategyFault.FAILED
        raise StrategyError(fault, f"Dynamo: {error}") from error
