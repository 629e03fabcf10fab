"""Strategy `dynamo` on real parts: NATS, Dynamo's mocker workers, and its KvRouter in this process."""

import asyncio
import random
from array import array

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.dynamo import DynamoStrategy
from epp_adapter.routing.dynamo_bookings import WorkerQuery
from epp_adapter.routing.dynamo_runtime import (
    DynamoConnectError,
    DynamoOptions,
    DynamoRuntime,
    KvRouterClient,
)
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from tests.epp_adapter.dynamo_stack import BLOCK_SIZE, ENDPOINT, VOCABULARY, deployment
from tests.epp_adapter.strategy_contract import Harness, StrategyContract

pytestmark = pytest.mark.integration

SETTLE_SECONDS = 5.0


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    with deployment(tmp_path_factory.mktemp("dynamo"), workers=3) as running:
        yield running


@pytest.fixture
def environment(deployed, monkeypatch):
    for name, value in deployed.environment.items():
        monkeypatch.setenv(name, value)
    # What `connect` sets for good; registered here so that it is taken back.
    monkeypatch.setenv("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("DYN_RUNTIME_NUM_WORKER_THREADS", "2")


OPTIONS = DynamoOptions("file", "tcp", "nats", connect_seconds=2)


@pytest.fixture
async def runtime(environment):
    runtime = DynamoRuntime.connect(OPTIONS)
    yield runtime
    runtime.shutdown()


@pytest.fixture
async def client(runtime):
    return runtime.router(ENDPOINT, BLOCK_SIZE, {})


@pytest.fixture
async def workers(runtime):
    """Dynamo's own client of the workers: their instance ids, and a way to send them work."""
    workers = await runtime._runtime.endpoint(ENDPOINT).client()
    await workers.wait_for_instances()
    return workers


@pytest.fixture
async def candidates(client, workers, deployed):
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(await client._router.get_potential_loads([1])) < deployed.workers:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return tuple(
        Endpoint(f"127.0.0.1:{8000 + number}", instance)
        for number, instance in enumerate(sorted(workers.instance_ids()))
    )


@pytest.fixture
async def strategy(client, candidates):
    strategy = DynamoStrategy("dynamo", client)
    yield strategy
    await strategy.close(SETTLE_SECONDS)
    assert strategy.bookings_active == 0
    assert await booked(client) == 0, "Dynamo still holds bookings after the test"


async def booked(client: KvRouterClient) -> int:
    """How many requests Dynamo itself believes to be running."""
    return sum(load["active_requests"] for load in await client._router.get_potential_loads([1]))


async def prefilling(client: KvRouterClient) -> int:
    """How many prompt tokens Dynamo itself believes to be waiting for prefill, over all workers."""
    loads = await client._router.get_potential_loads([])
    return sum(load["potential_prefill_tokens"] for load in loads)


def prompt(seed: int, tokens: int = 800) -> TokenIds:
    ids = random.Random(seed)
    return TokenIds.pack([ids.randrange(2, VOCABULARY) for _ in range(tokens)])


class Requests:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, token_ids: TokenIds) -> RoutingRequest:
        self.count += 1
        return RoutingRequest(f"real-{id(self)}-{self.count}", "tiny", token_ids)


@pytest.fixture
def request_for():
    return Requests()


async def serve(workers, token_ids: TokenIds, instance_id: int) -> None:
    """Let a worker compute a prompt, so that it holds its blocks and says so."""
    request = {
        "model": "tiny",
        "token_ids": list(token_ids.as_array()),
        "stop_conditions": {"max_tokens": 2},
        "sampling_options": {},
        "output_options": {},
        "eos_token_ids": [],
        "annotations": [],
    }
    async for _ in await workers.direct(request, instance_id):
        pass


class TestContract(StrategyContract):
    @pytest.fixture
    def harness(self, strategy, candidates):
        return Harness(strategy, candidates, lambda: strategy.bookings_active)


async def test_different_prompts_spread_over_the_workers(strategy, candidates, request_for):
    picks = [await strategy.pick(request_for(prompt(seed)), candidates) for seed in range(6)]
    chosen = [pick.destination.first for pick in picks]
    assert {chosen.count(endpoint) for endpoint in candidates} == {2}
    for pick in picks:
        await pick.finished(Termination.ENDED)


async def test_a_prompt_goes_to_the_worker_that_holds_its_prefix(strategy, workers, candidates, request_for):
    """The second turn of a conversation follows the first, whichever worker that was."""
    for seed, holder in enumerate(candidates, start=1000):
        first_turn = prompt(seed)
        await serve(workers, first_turn, holder.dynamo_instance_id)
        second_turn = TokenIds(first_turn.packed + prompt(seed + 500, 80).packed)
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:  # the worker's event is on its way
                pick = await strategy.pick(request_for(second_turn), candidates)
                await pick.finished(Termination.ENDED)
                if pick.cached_tokens:
                    break
        assert pick.destination.first == holder
        assert pick.cached_tokens == 800


async def test_ids_above_one_byte_are_routed_as_ids_and_not_as_bytes(client, workers, candidates, strategy):
    """Dynamo takes bytes as one token per byte; the overlap in blocks tells which of the two it saw."""
    ids = TokenIds.pack([256 + number % 128 for number in range(160)])
    await serve(workers, ids, candidates[0].dynamo_instance_id)
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            choice = await client.best_worker("bytes-or-ids", WorkerQuery(ids))
            await client.free("bytes-or-ids")
            if choice.cached_tokens:
                break
    assert choice.cached_tokens == 160


async def test_dynamo_counts_a_booking_until_prefill_and_until_the_end(
    client, strategy, candidates, request_for
):
    pick = await strategy.pick(request_for(prompt(1)), candidates)
    assert (await booked(client), await prefilling(client)) == (1, 800)
    await pick.first_token()
    assert (await booked(client), await prefilling(client)) == (1, 0)
    await pick.finished(Termination.ENDED)
    assert (await booked(client), await prefilling(client)) == (0, 0)


async def test_a_worker_that_is_no_candidate_is_left_and_freed(client, strategy, candidates, request_for):
    with pytest.raises(StrategyError) as caught:
        await strategy.pick(request_for(prompt(2)), (Endpoint("127.0.0.1:1", 1),))
    assert caught.value.fault is StrategyFault.NOT_A_CANDIDATE
    assert await booked(client) == 0


async def test_a_pick_cancelled_anywhere_in_flight_leaves_no_booking(
    client, strategy, candidates, request_for
):
    """From before the call into Dynamo to long after it; some of these bookings exist when they are left."""
    token_ids = prompt(3, 8000)
    cancelled = 0
    for number in range(120):
        picking = asyncio.ensure_future(strategy.pick(request_for(token_ids), candidates))
        await asyncio.sleep(number * 10e-6 if number % 2 else 0)
        picking.cancel()
        try:
            pick = await picking
        except asyncio.CancelledError:
            cancelled += 1
        else:
            await pick.finished(Termination.CANCELLED)
    await strategy.close(SETTLE_SECONDS)
    assert cancelled > 20
    assert (await booked(client), await prefilling(client)) == (0, 0)


async def test_clients_that_leave_at_random_leave_no_booking(client, strategy, candidates, request_for):
    """500 exchanges at once, each cut off somewhere between its pick and its end."""

    async def exchange(number: int) -> None:
        pick = await strategy.pick(request_for(prompt(number % 50, 400)), candidates)
        try:
            await asyncio.sleep(0.001 * (number % 7))
            await pick.first_token()
            await asyncio.sleep(0.001 * (number % 5))
        finally:
            await asyncio.shield(pick.finished(Termination.CANCELLED))

    running = [asyncio.create_task(exchange(number)) for number in range(500)]
    for number, task in enumerate(running):
        if number % 3 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    async with asyncio.timeout(SETTLE_SECONDS):
        while strategy.bookings_active:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    assert (await booked(client), await prefilling(client)) == (0, 0)


async def test_where_nobody_works_a_pick_fails_at_once(environment, candidates, request_for):
    runtime = DynamoRuntime.connect(OPTIONS)
    strategy = DynamoStrategy("dynamo", runtime.router("dyn.nobody.generate", BLOCK_SIZE, {}))
    async with asyncio.timeout(1):
        with pytest.raises(StrategyError) as caught:
            await strategy.pick(request_for(prompt(4)), candidates)
    assert caught.value.fault is StrategyFault.NO_WORKERS
    assert strategy.bookings_active == 0
    runtime.shutdown()


async def test_what_dynamo_refuses_is_a_strategy_error(client, strategy):
    with pytest.raises(StrategyError) as caught:
        await client.free("nobody booked this")
    assert caught.value.fault is StrategyFault.FAILED
    with pytest.raises(StrategyError):
        await client.mark_prefill_complete("nobody booked this")


async def test_without_nats_connecting_fails_in_time_and_says_what_was_tried(environment, monkeypatch):
    monkeypatch.setenv("NATS_SERVER", "nats://127.0.0.1:9")
    with pytest.raises(DynamoConnectError, match=r"discovery file.*NATS startup connection"):
        DynamoRuntime.connect(OPTIONS)


def test_the_ids_are_given_to_dynamo_as_an_array():
    """The guard for the one mistake that Dynamo does not report."""
    assert isinstance(prompt(1).as_array(), array)


@pytest.mark.parametrize("query", [{"lora_name": "sql"}, {"cache_namespace": "acme"}])
async def test_cached_blocks_of_the_base_model_are_not_those_of_an_adapter_or_a_tenant(
    client, workers, candidates, strategy, query
):
    token_ids = prompt(40)
    await serve(workers, token_ids, candidates[0].dynamo_instance_id)
    async with asyncio.timeout(SETTLE_SECONDS):
        while not (await client.best_worker("base", WorkerQuery(token_ids))).cached_tokens:
            await client.free("base")
    await client.free("base")
    assert (await client.best_worker("own", WorkerQuery(token_ids, **query))).cached_tokens == 0
    await client.free("own")


@pytest.mark.parametrize("config", [{"router_predicted_ttl_secs": 30.0}, {"use_kv_events": False}])
async def test_a_router_that_learns_from_its_own_picks_needs_no_event(
    runtime, candidates, request_for, config
):
    router = runtime.router(ENDPOINT, BLOCK_SIZE, config)
    await met(router, len(candidates))
    strategy = DynamoStrategy("dynamo", router)
    for seed in range(50, 56):
        async with asyncio.timeout(SETTLE_SECONDS):
            cached_tokens = 0
            while not cached_tokens:  # the router learns beside the pick
                first = await strategy.pick(request_for(prompt(seed)), candidates)
                await first.finished(Termination.ENDED)
                again = await strategy.pick(request_for(prompt(seed)), candidates)
                await again.finished(Termination.ENDED)
                cached_tokens = again.cached_tokens
        assert cached_tokens == 800
        assert again.destination == first.destination


async def met(router: KvRouterClient, workers: int) -> None:
    """Wait until a router knows so many workers."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(await router._router.get_potential_loads([1])) < workers:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class TestReplicaSync:
    """Two adapters, each with a runtime and a router of its own, over the same workers."""

    @pytest.fixture
    async def routers(self, environment, deployed):
        runtimes = [DynamoRuntime.connect(OPTIONS) for _ in range(2)]
        routers = [each.router(ENDPOINT, BLOCK_SIZE, {"router_replica_sync": True}) for each in runtimes]
        for router in routers:
            await met(router, deployed.workers)
        await self.heard(routers)
        yield routers
        for runtime in runtimes:
            runtime.shutdown()

    async def heard(self, routers):
        """Wait until each hears the other, which takes their subscriptions some time."""
        for one, other in (routers, routers[::-1]):
            async with asyncio.timeout(SETTLE_SECONDS):
                while not await booked(other):
                    await one.best_worker("probe", WorkerQuery(prompt(1)))
                    await asyncio.sleep(0.05)
                    heard = await booked(other)
                    await one.free("probe")
                    if heard:
                        break
                while await booked(other):  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.01)

    @staticmethod
    async def until(count, router):
        async with asyncio.timeout(SETTLE_SECONDS):
            while await booked(router) != count:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)

    async def test_what_one_books_marks_and_frees_the_other_sees(self, routers, candidates, request_for):
        first, second = routers
        strategy = DynamoStrategy("dynamo", first)
        picks = [await strategy.pick(request_for(prompt(seed)), candidates) for seed in range(6)]
        await self.until(6, second)
        assert await prefilling(second) == 6 * 800
        for pick in picks:
            await pick.first_token()
        async with asyncio.timeout(SETTLE_SECONDS):
            while await prefilling(second):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)
        for pick in picks:
            await pick.finished(Termination.ENDED)
        await self.until(0, second)
        assert await booked(first) == 0

    async def test_one_adapter_avoids_the_workers_that_the_other_has_filled(
        self, routers, candidates, request_for
    ):
        """Alone, the second would know of no load at all and use every worker."""
        one, other = (DynamoStrategy("dynamo", router) for router in routers)
        heavy = [await one.pick(request_for(prompt(seed, 16_000)), candidates) for seed in (70, 71)]
        filled = {pick.destination.first for pick in heavy}
        assert len(filled) == 2
        await self.until(2, routers[1])
        light = [await other.pick(request_for(prompt(seed, 160)), candidates) for seed in range(80, 88)]
        assert {pick.destination.first for pick in light} == set(candidates) - filled
        for pick in heavy + light:
            await pick.finished(Termination.ENDED)
        for router in routers:
            await self.until(0, router)
