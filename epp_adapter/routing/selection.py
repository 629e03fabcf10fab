"""Strategy `dynamo-selection`: Dynamo's router core over plain vLLM workers, whose catalog we keep.

There is no Dynamo deployment behind it: the workers are the pool's ready endpoints, and each publishes vLLM's
KV events over ZMQ. Who may be chosen is said with every request, so that subset hints are exact.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NoReturn, Protocol

from epp_adapter.endpoints import Endpoint, EndpointSource
from epp_adapter.routing.booked_pick import BookedPick
from epp_adapter.routing.dynamo import QueryRules
from epp_adapter.routing.dynamo_bookings import Bookings, FakeWorkerRouter, WorkerRouter
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault

__all__ = [
    "CatalogRouter",
    "FakeCatalogRouter",
    "PoolWorker",
    "SelectionStrategy",
    "WorkerPorts",
    "worker_id",
]

_log = logging.getLogger(__name__)

# vLLM 0.32 (entrypoints/openai): the data-parallel engine that is to serve a request.
_DATA_PARALLEL_RANK_HEADER: Final = "x-data-parallel-rank"


def worker_id(address: str) -> int:
    """The same number for an address in every adapter, so that adapters understand each other's bookings.

    53 bits, which every JSON reader keeps.
    """
    return int.from_bytes(sha256(address.encode()).digest()[:8], "big") >> 11


@dataclass(frozen=True, slots=True)
class PoolWorker:
    """`kv_events`: where each data-parallel rank publishes; `replay`: where missed events are asked for."""

    worker_id: int
    address: str
    kv_events: Mapping[int, str] = field(hash=False)
    replay: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """How an endpoint tells where its worker publishes: `port` on its ip, unless `port_label` names a label
    that holds another; then a port more for each rank. `replay_offset` is added to that.
    """

    port: int
    port_label: str | None = None
    replay_offset: int | None = None
    data_parallel_size: int = 1

    def worker(self, endpoint: Endpoint) -> PoolWorker:
        host = f"[{endpoint.ip}]" if ":" in endpoint.ip else endpoint.ip
        label = endpoint.labels.get(self.port_label, "") if self.port_label else ""
        port = int(label) if label.isascii() and label.isdigit() else self.port
        return PoolWorker(
            worker_id(endpoint.address),
            endpoint.address,
            {rank: f"tcp://{host}:{port + rank}" for rank in range(self.data_parallel_size)},
            None if self.replay_offset is None else f"tcp://{host}:{port + self.replay_offset}",
        )


class CatalogRouter(WorkerRouter, Protocol):
    """A WorkerRouter that is told its workers. Both calls raise StrategyError."""

    async def upsert(self, worker: PoolWorker) -> None: ...

    async def delete(self, worker_id: int) -> None: ...


class SelectionStrategy:
    """Owns the catalog and the bookings of one router. Needs token ids.

    `follow` is to run as long as the strategy is used: an endpoint can be picked once it is in the catalog.
    """

    def __init__(
        self,
        name: str,
        router: CatalogRouter,
        ports: WorkerPorts,
        rules: QueryRules | None = None,
    ) -> None:
        self.name = name
        self._router = router
        self._ports = ports
        self._rules = rules or QueryRules()
        self._bookings = Bookings(router)
        self._catalog: dict[int, PoolWorker] = {}
        self._refused: set[int] = set()

    @property
    def bookings_active(self) -> int:
        """Bookings that are not freed yet, with those that are being made."""
        return self._bookings.active

    @property
    def workers(self) -> int:
        """How many workers are in the catalog."""
        return len(self._catalog)

    async def pick(self, request: RoutingRequest, candidates: Sequence[Endpoint]) -> BookedPick:
        if not request.token_ids:
            raise StrategyError(StrategyFault.NO_TOKEN_IDS, "the request carries no token ids")
        if not candidates:
            raise StrategyError(StrategyFault.NO_CANDIDATES, "there is no candidate")
        known = {
            number: endpoint
            for endpoint in candidates
            if (number := worker_id(endpoint.address)) in self._catalog
        }
        if not known:
            raise StrategyError(StrategyFault.NO_WORKERS, "no candidate is in the catalog yet")
        query = self._rules.query(request, allowed=frozenset(known))
        worker = await self._bookings.book(request.request_id, query)
        endpoint = known.get(worker.worker_id)
        if endpoint is None:  # a router that does not do as it is told
            await self._bookings.release(request.request_id)
            raise StrategyError(StrategyFault.NOT_A_CANDIDATE, "the chosen worker is no ready candidate")
        parallel = self._ports.data_parallel_size > 1
        return BookedPick(
            self.name,
            request.request_id,
            endpoint,
            self._bookings,
            request_headers={_DATA_PARALLEL_RANK_HEADER: str(worker.dp_rank)} if parallel else {},
            cached_tokens=worker.cached_tokens,
        )

    async def follow(self, endpoints: EndpointSource, poll_seconds: float) -> NoReturn:
        """Keep the catalog equal to the ready endpoints, for ever."""
        seen = None
        while True:
            snapshot = endpoints.current()
            if snapshot is not seen or self._refused:
                await self.reconcile(snapshot.ready())
                seen = snapshot
            await asyncio.sleep(poll_seconds)

    async def reconcile(self, ready: Sequence[Endpoint]) -> None:
        """Make the catalog equal to these. What the router refuses is logged once and tried again next time.

        A worker that is not ready leaves the catalog, and with it what is known of its cache: when it is
        ready again it may have been restarted.
        """
        wanted = {each.worker_id: each for each in map(self._ports.worker, ready)}
        self._refused &= wanted.keys()
        for number in self._catalog.keys() - wanted.keys():
            del self._catalog[number]  # first: nobody may pick it from here on
            try:
                await self._router.delete(number)
            except StrategyError as error:
                _log.warning("a worker was not deleted from Dynamo's catalog: %s", error)
        for number, worker in wanted.items():
            if self._catalog.get(number) != worker:
                await self._upsert(worker)

    async def _upsert(self, worker: PoolWorker) -> None:
        try:
            await self._router.upsert(worker)
        except StrategyError as error:
            if worker.worker_id not in self._refused:
                _log.warning("%s is not in Dynamo's catalog: %s", worker.address, error)
                self._refused.add(worker.worker_id)
        else:
            self._refused.discard(worker.worker_id)
            self._catalog[worker.worker_id] = worker

    async def close(self, seconds: float) -> None:
        """Wait until what is being freed is free, `seconds` at most. No pick may be made any more."""
        await self._bookings.close(seconds)


class FakeCatalogRouter(FakeWorkerRouter):
    """Chooses among the workers it was told, in turn: the fake of the seam above. It refuses `refused`."""

    def __init__(self) -> None:
        super().__init__()
        self.catalog: dict[int, PoolWorker] = {}
        self.refused: set[int] = set()

    async def upsert(self, worker: PoolWorker) -> None:
        if worker.worker_id in self.refused:
            raise StrategyError(StrategyFault.FAILED, "no such worker is wanted")
        self.catalog[worker.worker_id] = worker
        self.worker_ids = tuple(self.catalog)

    async def delete(self, worker_id: int) -> None:
        if self.catalog.pop(worker_id, None) is None:
            raise StrategyError(StrategyFault.FAILED, "no such worker")
        self.worker_ids = tuple(self.catalog)
