"""Strategy `dynamo-selection` over a fake router: its catalog follows the endpoints, its hints are exact."""

import asyncio

import pytest

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.routing.selection import (
    FakeCatalogRouter,
    PoolWorker,
    SelectionStrategy,
    WorkerPorts,
    worker_id,
)
from epp_adapter.routing.strategy import RoutingRequest, StrategyError, StrategyFault
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from tests.epp_adapter.strategy_contract import Harness, StrategyContract

ENDPOINTS = tuple(Endpoint(f"10.0.0.{number}:8000") for number in range(1, 4))
IDS = TokenIds.pack(list(range(160)))


def request(request_id: str = "r", token_ids: TokenIds | None = IDS) -> RoutingRequest:
    return RoutingRequest(request_id, "model", token_ids)


def faulty(**changes) -> Endpoint:
    return Endpoint("10.0.0.9:8000", **changes)


@pytest.fixture
def router():
    return FakeCatalogRouter()


@pytest.fixture
async def strategy(router):
    strategy = SelectionStrategy("selection", router, WorkerPorts(5557))
    await strategy.reconcile(ENDPOINTS)
    return strategy


class TestContract(StrategyContract):
    @pytest.fixture
    def harness(self, strategy, router):
        return Harness(strategy, ENDPOINTS, lambda: strategy.bookings_active + len(router.booked))


async def test_the_pick_goes_to_the_address_of_the_chosen_worker_with_no_header_of_dynamos(strategy):
    pick = await strategy.pick(request(), ENDPOINTS)
    assert pick.destination.first in ENDPOINTS
    assert (pick.request_headers, pick.cached_tokens) == ({}, 16)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_router_may_choose_among_the_candidates_only(strategy, router, count):
    for number in range(6):
        pick = await strategy.pick(request(f"{count}-{number}"), ENDPOINTS[:count])
        assert pick.destination.first in ENDPOINTS[:count]
    assert router.queries[-1].allowed == {worker_id(each.address) for each in ENDPOINTS[:count]}


async def test_a_candidate_that_is_not_in_the_catalog_yet_is_left_out(strategy):
    pick = await strategy.pick(request(), (faulty(), ENDPOINTS[1]))
    assert pick.destination.first == ENDPOINTS[1]
    with pytest.raises(StrategyError) as caught:
        await strategy.pick(request("other"), (faulty(),))
    assert caught.value.fault is StrategyFault.NO_WORKERS


@pytest.mark.parametrize("ids", [None, TokenIds.pack([])])
async def test_without_token_ids_the_router_is_not_asked(strategy, router, ids):
    with pytest.raises(StrategyError) as caught:
        await strategy.pick(request(token_ids=ids), ENDPOINTS)
    assert caught.value.fault is StrategyFault.NO_TOKEN_IDS
    assert not router.queries


async def test_a_router_that_chooses_somebody_else_is_not_followed_and_its_booking_freed(strategy, router):
    router.worker_ids = (1,)
    router.best_worker = lambda booking_id, query: FakeCatalogRouter.best_worker(  # it ignores `allowed`
        router, booking_id, type(query)(query.token_ids)
    )
    with pytest.raises(StrategyError) as caught:
        await strategy.pick(request("a"), ENDPOINTS)
    assert caught.value.fault is StrategyFault.NOT_A_CANDIDATE
    assert (router.freed, strategy.bookings_active) == (["a"], 0)


async def test_the_catalog_follows_the_ready_endpoints(strategy, router):
    assert {worker.address for worker in router.catalog.values()} == {each.address for each in ENDPOINTS}
    await strategy.reconcile((ENDPOINTS[1], faulty()))
    assert {worker.address for worker in router.catalog.values()} == {ENDPOINTS[1].address, "10.0.0.9:8000"}
    assert strategy.workers == 2


async def test_what_did_not_change_is_left_alone(strategy, router):
    assert len(router.catalog) == 3
    router.catalog.clear()
    await strategy.reconcile(ENDPOINTS)
    assert router.catalog == {}, "nothing was told again"


async def test_a_worker_that_publishes_elsewhere_is_told_to_the_router_again(router):
    strategy = SelectionStrategy("selection", router, WorkerPorts(5557, port_label="events"))
    await strategy.reconcile((faulty(labels={"events": "6001"}),))
    await strategy.reconcile((faulty(labels={"events": "6002"}),))
    (worker,) = router.catalog.values()
    assert worker.kv_events == {0: "tcp://10.0.0.9:6002"}


async def test_a_worker_that_the_router_refuses_is_tried_again_and_logged_once(strategy, router, caplog):
    router.refused.add(worker_id("10.0.0.9:8000"))
    for _ in range(3):
        await strategy.reconcile((*ENDPOINTS, faulty()))
    assert [record.getMessage() for record in caplog.records].count(
        "10.0.0.9:8000 is not in Dynamo's catalog: failed: no such worker is wanted"
    ) == 1
    assert strategy.workers == 3
    router.refused.clear()
    await strategy.reconcile((*ENDPOINTS, faulty()))
    assert strategy.workers == 4


async def test_a_worker_that_cannot_be_deleted_is_no_longer_picked(strategy, router, caplog):
    del router.catalog[worker_id(ENDPOINTS[0].address)]
    await strategy.reconcile(ENDPOINTS[1:])
    assert "not deleted" in caplog.text
    with pytest.raises(StrategyError):
        await strategy.pick(request(), ENDPOINTS[:1])


async def test_following_notices_a_change_within_the_polling_time(router):
    strategy = SelectionStrategy("selection", router, WorkerPorts(5557))
    endpoints = FixedEndpoints(*ENDPOINTS)
    following = asyncio.create_task(strategy.follow(endpoints, poll_seconds=0.01))

    async def until(count):
        async with asyncio.timeout(2):
            while strategy.workers != count:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)

    await until(3)
    endpoints.replace(ENDPOINTS[0], Endpoint(ENDPOINTS[1].address, ready=False))
    await until(1)
    endpoints.replace(*ENDPOINTS)
    await until(3)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


@pytest.mark.parametrize(
    ("ports", "endpoint", "kv_events", "replay"),
    [
        (WorkerPorts(5557), faulty(), {0: "tcp://10.0.0.9:5557"}, None),
        (WorkerPorts(5557, replay_offset=1), faulty(), {0: "tcp://10.0.0.9:5557"}, "tcp://10.0.0.9:5558"),
        (
            WorkerPorts(5557, data_parallel_size=2),
            Endpoint("[fd00::7]:8000"),
            {0: "tcp://[fd00::7]:5557", 1: "tcp://[fd00::7]:5558"},
            None,
        ),
        (WorkerPorts(5557, "events"), faulty(labels={"events": "six"}), {0: "tcp://10.0.0.9:5557"}, None),
    ],
)
def test_where_a_worker_publishes_follows_from_its_ip_and_its_label(ports, endpoint, kv_events, replay):
    worker = ports.worker(endpoint)
    assert worker == PoolWorker(worker_id(endpoint.address), endpoint.address, kv_events, replay)


async def test_a_data_parallel_rank_travels_in_vllms_header(router):
    strategy = SelectionStrategy("selection", router, WorkerPorts(5557, data_parallel_size=2))
    await strategy.reconcile(ENDPOINTS)
    pick = await strategy.pick(request(), ENDPOINTS)
    assert pick.request_headers == {"x-data-parallel-rank": "0"}
    await pick.finished(Termination.ENDED)


def test_worker_ids_are_the_same_everywhere_and_fit_into_every_json_reader():
    assert worker_id("10.0.0.7:8000") == 151917607278801
    assert len({worker_id(f"10.0.{high}.{low}:8000") for high in range(8) for low in range(250)}) == 2000
    assert all(worker_id(f"10.0.0.{low}:8000") < 2**53 for low in range(250))
