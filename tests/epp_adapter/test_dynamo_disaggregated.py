"""A disaggregated graph on real parts: two routers choose, a front end in direct mode serves."""

import asyncio
import signal
from pathlib import Path

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.dynamo import DynamoStrategy
from epp_adapter.routing.dynamo_runtime import DynamoRuntime
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from extproc.events import Termination
from tests.epp_adapter.dynamo_client import (
    OPTIONS,
    SETTLE_SECONDS,
    Client,
    ids,
    picked_with_cache,
    pinned,
    router_of,
)
from tests.epp_adapter.dynamo_stack import ENDPOINT, frontend, instance_ids, mockers, plane

pytestmark = pytest.mark.integration

PREFILL_ENDPOINT = "dyn.prefill.generate"
DECODE = ("--disaggregation-mode", "decode")
PREFILL = ("--disaggregation-mode", "prefill")


class Graph:
    """One decode worker with its front end at `url`, two prefill workers in one process."""

    def __init__(self, environment, url, prefill) -> None:
        self.environment = environment
        self.url = url
        self.prefill = prefill
        self.discovery = Path(environment["DYN_FILE_KV"])
        (self.instance,) = instance_ids(self.discovery)
        self.candidates = (Endpoint("127.0.0.1:1", self.instance),)
        self.pin = {"x-dynamo-worker-instance-id": str(self.instance)}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disaggregated")
    with (
        plane(folder) as environment,
        mockers(folder, environment, ENDPOINT, 1, DECODE),
        mockers(folder, environment, PREFILL_ENDPOINT, 2, PREFILL) as prefill,
        frontend(folder, environment) as url,
    ):
        yield Graph(environment, url, prefill)


@pytest.fixture
def client(graph):
    return Client(graph.url)


@pytest.fixture
async def joined(graph, monkeypatch):
    """This process's place in the deployment."""
    for name, value in graph.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "2")
    monkeypatch.setenv("DYN_RUNTIME_NUM_WORKER_THREADS", "2")
    runtime = DynamoRuntime.connect(OPTIONS)
    yield runtime
    runtime.shutdown()


@pytest.fixture
async def routers(joined):
    untracked = {"router_track_active_blocks": False}
    return (
        await router_of(joined, ENDPOINT, ranks=1),
        await router_of(joined, PREFILL_ENDPOINT, ranks=2, config=untracked),
    )


@pytest.fixture
def strategy(routers):
    decode, prefill = routers
    return DynamoStrategy("dynamo", decode, prefill=prefill)


async def held(routers) -> list[tuple[int, int]]:
    """For each router: requests and prompt tokens that Dynamo believes to be there."""
    counts = []
    for router in routers:
        loads = await router._router.get_potential_loads([])
        counts.append(
            (
                sum(load["active_requests"] for load in loads),
                sum(load["potential_prefill_tokens"] for load in loads),
            )
        )
    return counts


async def test_the_front_end_serves_what_two_routers_chose(strategy, graph, client, routers):
    pick = await strategy.pick(client.request(ids(1)), graph.candidates)
    prefill = int(pick.request_headers["x-dynamo-prefill-instance-id"])
    assert prefill in instance_ids(graph.discovery, PREFILL_ENDPOINT)
    assert await held(routers) == [(1, 0), (1, 320)]
    status, answer = await client.send(pinned(pick), ids(1))
    assert (status, answer["usage"]["prompt_tokens"]) == (200, 320)
    await pick.first_token()
    assert await held(routers) == [(1, 0), (0, 0)]
    await pick.finished(Termination.ENDED)
    assert await held(routers) == [(0, 0), (0, 0)]


async def test_a_prompt_goes_to_the_prefill_worker_that_holds_it(strategy, graph, client):
    for seed in range(10, 14):
        first = await strategy.pick(client.request(ids(seed)), graph.candidates)
        status, _ = await client.send(pinned(first), ids(seed))
        await first.finished(Termination.ENDED)
        assert status == 200
        second = await picked_with_cache(strategy, client, ids(seed), graph.candidates)
        assert second.request_headers == first.request_headers
        assert second.cached_tokens == 320


async def test_a_request_without_ids_is_served_too(strategy, graph, client):
    pick = await strategy.pick(RoutingRequest("no-ids", "tiny", None), graph.candidates)
    status, _ = await client.send(pinned(pick), ids(3))
    await pick.finished(Termination.ENDED)
    assert status == 200


async def test_without_a_prefill_header_the_front_end_fails(graph, client):
    assert (await client.send(graph.pin, ids(4)))[0] == 500


async def test_without_prefill_workers_nothing_is_picked_and_nothing_booked(strategy, graph, client, routers):
    """The last test: it takes the workers down."""
    graph.prefill.send_signal(signal.SIGTERM)
    graph.prefill.wait(10)
    fault = None
    async with asyncio.timeout(SETTLE_SECONDS):
        while fault is None:
            try:
                pick = await strategy.pick(client.request(ids(5)), graph.candidates)
            except StrategyError as error:
                fault = error.fault
            else:
                await pick.finished(Termination.ENDED)
    assert (fault, strategy.bookings_active) == (StrategyFault.NO_WORKERS, 0)
    assert (await held(routers))[0] == (0, 0)
    assert (await client.send(graph.pin, ids(4)))[0] == 503
