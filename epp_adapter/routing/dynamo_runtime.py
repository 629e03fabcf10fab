"""The only importer of `dynamo`: its KvRouter in this process, behind `WorkerRouter`.

Built on ai-dynamo-runtime 1.6.1 (dynamo/_core.pyi). Dynamo raises plain `Exception` with a sentence for most
failures, so this adapter is the one place that catches Exception and reads those sentences.
"""

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from dynamo.llm import KvRouter, KvRouterConfig, RouterQueueLimitExceeded
from dynamo.runtime import DistributedRuntime

from epp_adapter.routing.dynamo import WorkerChoice
from epp_adapter.routing.strategy import StrategyError, StrategyFault
from extproc.token_metadata import TokenIds

__all__ = ["DynamoConnectError", "DynamoOptions", "KvRouterClient"]

T = TypeVar("T")

# Sentences of 1.6.1 (lib/kv-router) that tell a fault; what is not here is FAILED.
_NO_WORKERS: Final = "no endpoints available"
_STARTUP_LIMITS: Final = ("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS")


class DynamoConnectError(Exception):
    """Dynamo's runtime cannot start here. The message is for the operator, and complete."""


@dataclass(frozen=True, slots=True)
class DynamoOptions:
    """`endpoint` is "namespace.component.endpoint". `block_size` must be the workers' own, or no prefix is
    ever found. `connect_seconds` bounds the wait for NATS and for etcd, each.
    """

    endpoint: str
    block_size: int
    discovery: str
    request_plane: str
    event_plane: str
    connect_seconds: int


class KvRouterClient:
    """A WorkerRouter over a KvRouter and the DistributedRuntime that it lives in."""

    def __init__(self, runtime: Any, router: Any) -> None:
        self._runtime = runtime
        self._router = router

    @classmethod
    def connect(cls, options: DynamoOptions) -> Self:
        """Join the Dynamo deployment. Workers need not be there yet; the router follows them from now on.

        Must be called where an event loop runs, and before anything is served: Dynamo's constructor holds the
        GIL for as long as it waits for NATS or etcd. Raises DynamoConnectError.
        """
        for variable in _STARTUP_LIMITS:
            # Dynamo takes this limit from nowhere else; its default is two minutes. An operator's value wins.
            os.environ.setdefault(variable, str(options.connect_seconds))
        try:
            runtime = DistributedRuntime(
                asyncio.get_running_loop(),
                options.discovery,
                options.request_plane,
                event_plane=options.event_plane,
            )
            router = KvRouter(runtime.endpoint(options.endpoint), options.block_size, KvRouterConfig())
        except Exception as error:
            raise DynamoConnectError(
                f"cannot join Dynamo (endpoint {options.endpoint}, discovery {options.discovery}, "
                f"event plane {options.event_plane}): {error}"
            ) from error
        return cls(runtime, router)

    async def best_worker(self, booking_id: str, token_ids: TokenIds) -> WorkerChoice:
        # An array, never bytes: Dynamo takes bytes without a word, as one token per byte.
        instance_id, dp_rank, cached_blocks = await _translated(
            self._router.best_worker(token_ids.as_array(), request_id=booking_id)
        )
        return WorkerChoice(instance_id, dp_rank, cached_blocks)

    async def mark_prefill_complete(self, booking_id: str) -> None:
        await _translated(self._router.mark_prefill_complete(booking_id))

    async def free(self, booking_id: str) -> None:
        await _translated(self._router.free(booking_id))

    def shutdown(self) -> None:
        """Leave the deployment. The router must not be called any more."""
        self._runtime.shutdown()


async def _translated(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except RouterQueueLimitExceeded:
        raise StrategyError(StrategyFault.OVERLOADED, "Dynamo's router queue is full") from None
    except Exception as error:
        fault = StrategyFault.NO_WORKERS if _NO_WORKERS in str(error) else StrategyFault.FAILED
        raise StrategyError(fault, f"Dynamo: {error}") from error
