"""Strategy `dynamo-selection` over Dynamo's SelectionService and real mockers that publish vLLM's KV events.

Mockers publish on all interfaces and cannot be told otherwise, so test_selection_real.py runs this file in a
network of its own; by its name it is collected nowhere else.
"""

import asyncio
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.dynamo_bookings import WorkerQuery
from epp_adapter.routing.dynamo_runtime import DynamoOptions, DynamoRuntime
from epp_adapter.routing.selection import SelectionStrategy, WorkerPorts, worker_id
from epp_adapter.routing.selection_runtime import SelectionClient, SelectionOptions
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from loadtests.stack.probes import free_ports
from tests.epp_adapter.dynamo_stack import BLOCK_SIZE, ENDPOINT, VOCABULARY, instance_ids, mockers, plane
from tests.epp_adapter.strategy_contract import Harness, StrategyContract

SETTLE_SECONDS = 8.0
PORTS = WorkerPorts(1, port_label="kv-port", replay_offset=1)


class Deployed:
    """Three workers with an endpoint each; only their instance ids and ports tell them apart."""

    def __init__(self, environment) -> None:
        self.environment = environment
        self.instances: dict[Endpoint, int] = {}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(self.instances)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    root = tmp_path_factory.mktemp("selection")
    with plane(root) as environment, ExitStack() as stack:
        running = Deployed(environment)
        discovery = Path(environment["DYN_FILE_KV"])
        port = max(free_ports(6))
        for number in range(3):
            folder = root / f"worker-{number}"
            folder.mkdir()
            (folder / "model").symlink_to(root / "model")
            events = port + 2 * number
            ports = ("--zmq-kv-events-ports", str(events), "--zmq-replay-ports", str(events + 1))
            before = instance_ids(discovery)
            stack.enter_context(
                mockers(folder, environment, ENDPOINT, number + 1, ("--num-workers", "1", *ports))
            )
            (instance,) = set(instance_ids(discovery)) - set(before)
            endpoint = Endpoint(f"127.0.0.1:{8000 + number}", labels={"kv-port": str(events)})
            running.instances[endpoint] = instance
        yield running


@pytest.fixture
async def workers(deployed, monkeypatch):
    """Dynamo's own client of the workers, to send them work directly."""
    for name, value in deployed.environment.items():
        monkeypatch.setenv(name, value)
    runtime = DynamoRuntime.connect(DynamoOptions("file", "tcp", "nats", connect_seconds=2))
    workers = await runtime._runtime.endpoint(ENDPOINT).client()
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(workers.instance_ids()) < 3:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.02)
    yield workers
    runtime.shutdown()


@pytest.fixture
async def client():
    client = SelectionClient(SelectionOptions(BLOCK_SIZE, indexer_threads=2))
    yield client
    client.shutdown()


@pytest.fixture
async def strategy(client, deployed):
    strategy = SelectionStrategy("selection", client, PORTS)
    await strategy.reconcile(deployed.endpoints)
    assert strategy.workers == 3
    await asyncio.sleep(0.3)  # a ZMQ subscription takes effect some time after it is made
    yield strategy
    await strategy.close(SETTLE_SECONDS)
    assert (strategy.bookings_active, client.bookings()) == (0, 0)


def prompt(seed: int, tokens: int = 800) -> TokenIds:
    ids = random.Random(seed)
    return TokenIds.pack([ids.randrange(2, VOCABULARY) for _ in range(tokens)])


class Requests:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, token_ids: TokenIds) -> RoutingRequest:
        self.count += 1
        return RoutingRequest(f"selection-{id(self)}-{self.count}", "tiny", token_ids)


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


async def pick_with_cache(strategy, request_for, token_ids, candidates):
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:  # the worker's event is on its way
            pick = await strategy.pick(request_for(token_ids), candidates)
            await pick.finished(Termination.ENDED)
            if pick.cached_tokens:
                return pick


class TestContract(StrategyContract):
    @pytest.fixture
    def harness(self, strategy, deployed, client):
        return Harness(strategy, deployed.endpoints, lambda: strategy.bookings_active + client.bookings())


async def test_a_prompt_goes_to_the_worker_that_holds_its_prefix(strategy, workers, deployed, request_for):
    for seed, (holder, instance) in enumerate(deployed.instances.items(), start=100):
        await serve(workers, prompt(seed), instance)
        second_turn = TokenIds(prompt(seed).packed + prompt(seed + 500, 80).packed)
        pick = await pick_with_cache(strategy, request_for, second_turn, deployed.endpoints)
        assert (pick.destination.first, pick.cached_tokens) == (holder, 800)


async def test_a_hint_that_leaves_the_holder_out_is_kept_exactly(strategy, workers, deployed, request_for):
    """Where Dynamo's KvRouter could only be asked and then contradicted."""
    holder, *others = deployed.endpoints
    await serve(workers, prompt(200), deployed.instances[holder])
    await pick_with_cache(strategy, request_for, prompt(200), deployed.endpoints)
    for number in range(20):
        allowed = tuple(others[: 1 + number % 2])
        pick = await strategy.pick(request_for(prompt(200)), allowed)
        assert pick.destination.first in allowed
        assert pick.cached_tokens == 0
        await pick.finished(Termination.ENDED)


async def test_picks_that_are_not_finished_spread_over_the_workers(strategy, deployed, request_for):
    picks = [await strategy.pick(request_for(prompt(seed)), deployed.endpoints) for seed in range(300, 309)]
    chosen = [pick.destination.first for pick in picks]
    assert {chosen.count(endpoint) for endpoint in deployed.endpoints} == {3}
    for pick in picks:
        await pick.finished(Termination.ENDED)


async def test_a_worker_that_leaves_and_returns_is_picked_again_and_its_new_blocks_found(
    strategy, workers, deployed, request_for
):
    holder, *others = deployed.endpoints
    await strategy.reconcile(others)
    with pytest.raises(StrategyError) as caught:
        await strategy.pick(request_for(prompt(400)), (holder,))
    assert caught.value.fault is StrategyFault.NO_WORKERS
    await strategy.reconcile(deployed.endpoints)
    await asyncio.sleep(0.3)
    await serve(workers, prompt(401), deployed.instances[holder])
    pick = await pick_with_cache(strategy, request_for, prompt(401), deployed.endpoints)
    assert pick.destination.first == holder


async def test_what_was_published_before_us_is_asked_for_after_the_first_gap(
    client, strategy, workers, deployed, request_for
):
    """An adapter that starts late learns a worker's whole cache with its next event."""
    holder, instance = next(iter(deployed.instances.items()))
    await serve(workers, prompt(500), instance)
    late_client = SelectionClient(SelectionOptions(BLOCK_SIZE, indexer_threads=2))
    late = SelectionStrategy("late", late_client, PORTS)
    await late.reconcile(deployed.endpoints)
    await asyncio.sleep(0.3)
    await serve(workers, prompt(501), instance)
    pick = await pick_with_cache(late, request_for, prompt(500), deployed.endpoints)
    assert (pick.destination.first, pick.cached_tokens) == (holder, 800)
    late_client.shutdown()


async def test_clients_that_leave_at_random_leave_no_booking(client, strategy, deployed, request_for):
    async def exchange(number: int) -> None:
        pick = await strategy.pick(request_for(prompt(number % 50, 400)), deployed.endpoints)
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
    assert client.bookings() == 0


async def test_an_adapter_and_a_tenant_have_cached_blocks_of_their_own(
    client, strategy, workers, deployed, request_for
):
    instance = next(iter(deployed.instances.values()))
    await serve(workers, prompt(600), instance)
    await pick_with_cache(strategy, request_for, prompt(600), deployed.endpoints)
    for number, own in enumerate(({"lora_name": "sql"}, {"cache_namespace": "acme"})):
        choice = await client.best_worker(f"own-{number}", WorkerQuery(prompt(600), **own))
        await client.free(f"own-{number}")
        assert choice.cached_tokens == 0


async def test_two_adapters_in_replica_sync_see_each_others_bookings(deployed, request_for):
    first_port, second_port = free_ports(2)
    clients = [
        SelectionClient(
            SelectionOptions(
                BLOCK_SIZE,
                indexer_threads=2,
                replica_sync_port=own,
                replica_sync_peers=(f"tcp://127.0.0.1:{peer}",),
            )
        )
        for own, peer in ((first_port, second_port), (second_port, first_port))
    ]
    one, other = (SelectionStrategy("selection", client, PORTS) for client in clients)
    for strategy in (one, other):
        await strategy.reconcile(deployed.endpoints)
    await asyncio.sleep(0.5)
    heavy = [await one.pick(request_for(prompt(seed, 16_000)), deployed.endpoints) for seed in (700, 701)]
    async with asyncio.timeout(SETTLE_SECONDS):
        while clients[1].bookings() < 2:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    free = set(deployed.endpoints) - {pick.destination.first for pick in heavy}
    light = [await other.pick(request_for(prompt(seed, 160)), deployed.endpoints) for seed in range(710, 716)]
    assert {pick.destination.first for pick in light} == free
    for pick in heavy + light:
        await pick.finished(Termination.ENDED)
    async with asyncio.timeout(SETTLE_SECONDS):
        while any(client.bookings() for client in clients):  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.01)
    for client in clients:
        client.shutdown()


async def test_what_dynamo_refuses_is_a_strategy_error(client, strategy):
    for call in (client.free("unknown"), client.mark_prefill_complete("unknown"), client.delete(1)):
        with pytest.raises(StrategyError) as caught:
            await call
        assert caught.value.fault is StrategyFault.FAILED
    with pytest.raises(StrategyError) as caught:
        await client.best_worker(
            "nobody", WorkerQuery(prompt(1), allowed=frozenset({worker_id("1.2.3.4:5")}))
        )
    assert caught.value.fault is StrategyFault.NO_WORKERS
