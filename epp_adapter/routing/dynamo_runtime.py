"""Dynamo's KvRouter in this process, behind `WorkerRouter`. Only selection_runtime imports `dynamo`, too.

Built on ai-dynamo-runtime 1.6.1 (dynamo/_core.pyi). Dynamo raises plain `Exception` with a sentence for most
failures, so this adapter is the one place that catches Exception and reads those sentences.
"""

import asyncio
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from dynamo.llm import KvRouter, KvRouterConfig, RouterQueueLimitExceeded
from dynamo.runtime import DistributedRuntime

from epp_adapter.routing.dynamo_bookings import WorkerChoice, WorkerQuery
from epp_adapter.routing.strategy import StrategyError, StrategyFault

__all__ = ["DynamoConnectError", "DynamoOptions", "DynamoRuntime", "KvRouterClient"]

T = TypeVar("T")

# Sentences of 1.6.1 (lib/kv-router) that tell a fault; what is not here is FAILED.
_NO_WORKERS: Final = "no endpoints available"
_STARTUP_LIMITS: Final = ("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS")
# Dynamo would start a thread for each core. This process asks one thing at a time, and threads wake each
# other: a booking's CPU in Dynamo is 0.37 ms with one of them, 0.47 with two, 0.52 with four (8,000 ids). Its
# index of KV events has threads of its own.
_WORKER_THREADS: Final = "DYN_RUNTIME_NUM_WORKER_THREADS"
# What Dynamo's own Endpoint Picker gives where another worker computes the prompt (ext-proc, epp.rs).
_DECODE_ONLY: Final = {"overlap_score_credit": 0.0, "assume_kv_reuse": False, "track_prefill_tokens": False}


class DynamoConnectError(Exception):
    """Dynamo's runtime cannot start here. The message is for the operator, and complete."""


@dataclass(frozen=True, slots=True)
class DynamoOptions:
    """Where the deployment is. `connect_seconds` bounds the wait for NATS and for etcd, each."""

    discovery: str
    request_plane: str
    event_plane: str
    connect_seconds: int


class DynamoRuntime:
    """Owns this process's place in one Dynamo deployment."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    @classmethod
    def connect(cls, options: DynamoOptions) -> Self:
        """Join the deployment.

        Must be called where an event loop runs, and before anything is served: Dynamo's constructor holds the
        GIL for as long as it waits for NATS or etcd. Raises DynamoConnectError.
        """
        for variable in _STARTUP_LIMITS:
            # Dynamo takes this limit from nowhere else; its default is two minutes. An operator's value wins.
            os.environ.setdefault(variable, str(options.connect_seconds))
        os.environ.setdefault(_WORKER_THREADS, "1")
        try:
            runtime = DistributedRuntime(
                asyncio.get_running_loop(),
                options.discovery,
                options.request_plane,
                event_plane=options.event_plane,
            )
        except Exception as error:
            where = f"discovery {options.discovery}, event plane {options.event_plane}"
            raise DynamoConnectError(f"cannot join Dynamo ({where}): {error}") from error
        return cls(runtime)

    def router(self, endpoint: str, block_size: int, config: Mapping[str, object]) -> "KvRouterClient":
        """A KV router over the workers of an endpoint, "namespace.component.endpoint".

        They need not be there yet; the router follows them from now on. `block_size` must be the workers'
        own, or no prefix is ever found. `config` has the arguments of KvRouterConfig that are not to be
        Dynamo's defaults. Raises DynamoConnectError.
        """
        # Without events, or ahead of them, the router learns prefixes from its own choices, if it is told to.
        learns = config.get("use_kv_events") is False or config.get("router_predicted_ttl_secs") is not None
        try:
            router = KvRouter(self._runtime.endpoint(endpoint), block_size, KvRouterConfig(**config))
        except Exception as error:
            raise DynamoConnectError(f"cannot route to endpoint {endpoint}: {error}") from error
        return KvRouterClient(router, block_size=block_size, learns=learns)

    def shutdown(self) -> None:
        """Leave the deployment. Its routers must not be called any more."""
        self._runtime.shutdown()


class KvRouterClient:
    """A WorkerRouter over a KvRouter. It cannot be told which workers are `allowed`."""

    def __init__(self, router: Any, *, block_size: int, learns: bool) -> None:
        self._router = router
        self._block_size = block_size
        self._learns = learns

    async def best_worker(self, booking_id: str, query: WorkerQuery) -> WorkerChoice:
        # An array, never bytes: Dynamo takes bytes without a word, as one token per byte.
        worker_id, dp_rank, cached_blocks = await _translated(
            self._router.best_worker(
                query.token_ids.as_array(),
                router_config_override=_DECODE_ONLY if query.decode_only else None,
                request_id=booking_id,
                update_indexer=self._learns and not query.decode_only,
                lora_name=query.lora_name or None,
                strict_priority=query.strict_priority,
                policy_class=query.policy_class or None,
                cache_namespace=query.cache_namespace or None,
            )
        )
        return WorkerChoice(worker_id, dp_rank, cached_blocks * self._block_size)

    async def mark_prefill_complete(self, booking_id: str) -> None:
        await _translated(self._router.mark_prefill_complete(booking_id))

    async def free(self, booking_id: str) -> None:
        await _translated(self._router.free(booking_id))


async def _translated(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except RouterQueueLimitExceeded:
        raise StrategyError(StrategyFault.OVERLOADED, "Dynamo's router queue is full") from None
    except Exception as error:
        fault = StrategyFault.NO_WORKERS if _NO_WORKERS in str(error) else StrategyFault.FAILED
        raise StrategyError(fault, f"Dynamo: {error}") from error
