"""The shipped strategies: the contract over each, then what is special to it."""

import asyncio

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing import dynamo_bookings
from epp_adapter.routing.dynamo import DynamoStrategy, QueryRules
from epp_adapter.routing.dynamo_bookings import FakeWorkerRouter
from epp_adapter.routing.fallback import FallbackStrategy, Step
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.strategy import (
    FakeStrategy,
    Fallback,
    RoutingRequest,
    StrategyError,
    StrategyFault,
)
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from tests.epp_adapter.strategy_contract import Harness, StrategyContract

ENDPOINTS = tuple(Endpoint(f"127.0.0.1:{8000 + number}", 100 + number) for number in range(3))
IDS = TokenIds.pack(list(range(160)))


def request(request_id: str = "r", token_ids: TokenIds | None = IDS) -> RoutingRequest:
    return RoutingRequest(request_id, "model", token_ids)


class TestFakeStrategy(StrategyContract):
    @pytest.fixture
    def harness(self):
        strategy = FakeStrategy()
        return Harness(strategy, ENDPOINTS, lambda: sum(1 for pick in strategy.made if not pick.terminations))


class TestRoundRobin(StrategyContract):
    @pytest.fixture
    def harness(self):
        return Harness(RoundRobin("round-robin"), ENDPOINTS, lambda: 0)

    async def test_it_takes_candidates_in_turn(self):
        strategy = RoundRobin("round-robin")
        picked = [(await strategy.pick(request(), ENDPOINTS)).destination.first for _ in range(6)]
        assert picked == [*ENDPOINTS, *ENDPOINTS]

    async def test_it_needs_no_token_ids(self):
        pick = await RoundRobin("round-robin").pick(request(token_ids=None), ENDPOINTS)
        assert pick.cached_tokens is None


class TestDynamo(StrategyContract):
    @pytest.fixture
    def router(self):
        return FakeWorkerRouter(*(endpoint.dynamo_instance_id for endpoint in ENDPOINTS))

    @pytest.fixture
    def strategy(self, router):
        return DynamoStrategy("dynamo", router)

    @pytest.fixture
    def harness(self, router, strategy):
        return Harness(strategy, ENDPOINTS, lambda: strategy.bookings_active + len(router.booked))

    async def test_the_chosen_instance_becomes_its_endpoint_and_rank_header(self, strategy):
        pick = await strategy.pick(request(), ENDPOINTS)
        assert pick.destination.rendered() == "127.0.0.1:8000"
        assert pick.request_headers == {"x-dynamo-dp-rank": "0"}
        assert pick.cached_tokens == 16

    async def test_the_prompt_is_marked_computed_once_and_the_booking_freed_once(self, strategy, router):
        pick = await strategy.pick(request("a"), ENDPOINTS)
        assert (strategy.bookings_active, list(router.booked)) == (1, ["a"])
        await pick.first_token()
        await pick.first_token()
        await pick.finished(Termination.ENDED)
        await pick.finished(Termination.CANCELLED)
        await pick.first_token()
        assert (router.prefilled, router.freed, strategy.bookings_active) == (["a"], ["a"], 0)

    @pytest.mark.parametrize("ids", [None, TokenIds.pack([])])
    async def test_without_token_ids_dynamo_is_not_asked(self, strategy, router, ids):
        with pytest.raises(StrategyError) as caught:
            await strategy.pick(request(token_ids=ids), ENDPOINTS)
        assert caught.value.fault is StrategyFault.NO_TOKEN_IDS
        assert not router.booked

    async def test_a_worker_that_is_no_candidate_is_freed_and_left_to_the_next_strategy(
        self, strategy, router
    ):
        with pytest.raises(StrategyError) as caught:
            await strategy.pick(request("a"), ENDPOINTS[1:])
        assert caught.value.fault is StrategyFault.NOT_A_CANDIDATE
        assert (router.freed, router.booked, strategy.bookings_active) == (["a"], {}, 0)

    async def test_no_workers_is_an_error_at_once(self):
        with pytest.raises(StrategyError) as caught:
            await DynamoStrategy("dynamo", FakeWorkerRouter()).pick(request(), ENDPOINTS)
        assert caught.value.fault is StrategyFault.NO_WORKERS

    async def test_a_booking_made_after_its_pick_was_cancelled_is_freed(self, strategy, router):
        router.gate = asyncio.Event()
        picking = asyncio.ensure_future(strategy.pick(request("late"), ENDPOINTS))
        await asyncio.sleep(0.01)
        picking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await picking
        assert strategy.bookings_active == 1
        router.gate.set()
        await strategy.close(1)
        assert (router.freed, router.booked, strategy.bookings_active) == (["late"], {}, 0)

    async def test_a_cancelled_pick_that_then_fails_leaves_nothing(self, strategy, router):
        router.gate = asyncio.Event()
        router.error = StrategyError(StrategyFault.FAILED, "broken")
        picking = asyncio.ensure_future(strategy.pick(request(), ENDPOINTS))
        await asyncio.sleep(0.01)
        picking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await picking
        router.gate.set()
        await strategy.close(1)
        assert (router.freed, strategy.bookings_active) == ([], 0)

    async def test_a_router_that_hangs_is_not_asked_without_end(self, strategy, router, monkeypatch):
        monkeypatch.setattr(dynamo_bookings, "MAX_ABANDONED", 3)
        router.gate = asyncio.Event()
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(strategy.pick(request(f"h{number}"), ENDPOINTS), 0.01)
        with pytest.raises(StrategyError) as caught:
            await asyncio.wait_for(strategy.pick(request("h3"), ENDPOINTS), 1)
        assert caught.value.fault is StrategyFault.OVERLOADED
        router.gate.set()
        await strategy.close(1)
        router.gate = None
        assert strategy.bookings_active == 0
        await (await strategy.pick(request("h4"), ENDPOINTS)).finished(Termination.ENDED)

    async def test_closing_gives_up_on_a_router_that_hangs(self, strategy, router):
        router.gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(strategy.pick(request(), ENDPOINTS), 0.01)
        await strategy.close(0.01)
        assert strategy.bookings_active == 1
        router.gate.set()
        await strategy.close(1)

    async def test_a_booking_that_dynamo_forgot_is_no_error(self, strategy, router):
        pick = await strategy.pick(request("a"), ENDPOINTS)
        router.booked.clear()
        await pick.first_token()
        await pick.finished(Termination.ENDED)
        assert strategy.bookings_active == 0


class TestDisaggregated(StrategyContract):
    """Two routers: one chooses who computes the prompt, the other who generates."""

    @pytest.fixture
    def prefill(self):
        return FakeWorkerRouter(7, 8)

    @pytest.fixture
    def decode(self):
        return FakeWorkerRouter(*(endpoint.dynamo_instance_id for endpoint in ENDPOINTS))

    @pytest.fixture
    def strategy(self, decode, prefill):
        return DynamoStrategy("dynamo", decode, prefill=prefill)

    @pytest.fixture
    def harness(self, strategy, decode, prefill):
        def active():
            return strategy.bookings_active + len(decode.booked) + len(prefill.booked)

        return Harness(strategy, ENDPOINTS, active)

    async def test_the_destination_generates_and_is_told_who_computes_the_prompt(self, strategy):
        pick = await strategy.pick(request(), ENDPOINTS)
        assert pick.destination.first == ENDPOINTS[0]
        assert pick.request_headers == {
            "x-dynamo-dp-rank": "0",
            "x-dynamo-prefill-instance-id": "7",
            "x-dynamo-prefill-dp-rank": "0",
        }
        assert pick.cached_tokens == 16

    async def test_only_the_prefill_worker_is_chosen_by_its_cache(self, strategy, decode, prefill):
        await strategy.pick(request(), ENDPOINTS)
        assert [query.decode_only for query in decode.queries + prefill.queries] == [True, False]

    async def test_the_prefill_booking_ends_with_the_first_token_and_the_other_with_the_request(
        self, strategy, decode, prefill
    ):
        pick = await strategy.pick(request("a"), ENDPOINTS)
        assert strategy.bookings_active == 2
        await pick.first_token()
        assert (prefill.freed, decode.freed, strategy.bookings_active) == (["a"], [], 1)
        await pick.finished(Termination.ENDED)
        assert (prefill.freed, decode.freed, strategy.bookings_active) == (["a"], ["a"], 0)

    async def test_without_a_first_token_both_end_with_the_request(self, strategy, decode, prefill):
        pick = await strategy.pick(request("a"), ENDPOINTS)
        await pick.finished(Termination.CANCELLED)
        await pick.first_token()
        assert (prefill.freed, decode.freed) == (["a"], ["a"])

    async def test_without_prefill_workers_nothing_is_booked(self, decode):
        strategy = DynamoStrategy("dynamo", decode, prefill=FakeWorkerRouter())
        with pytest.raises(StrategyError) as caught:
            await strategy.pick(request(), ENDPOINTS)
        assert caught.value.fault is StrategyFault.NO_WORKERS
        assert (decode.queries, strategy.bookings_active) == ([], 0)

    @pytest.mark.parametrize("decode", [FakeWorkerRouter(), FakeWorkerRouter(99)])
    async def test_where_nobody_may_generate_the_prefill_booking_is_freed(self, decode, prefill):
        strategy = DynamoStrategy("dynamo", decode, prefill=prefill)
        with pytest.raises(StrategyError):
            await strategy.pick(request("a"), ENDPOINTS)
        assert (prefill.freed, strategy.bookings_active) == (["a"], 0)

    async def test_a_pick_cancelled_between_the_two_frees_the_first(self, strategy, decode, prefill):
        decode.gate = asyncio.Event()
        picking = asyncio.ensure_future(strategy.pick(request("a"), ENDPOINTS))
        async with asyncio.timeout(1):
            while not decode.queries:  # noqa: ASYNC110  # the fake tells nobody
                await asyncio.sleep(0)
        picking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await picking
        assert prefill.freed == ["a"]
        decode.gate.set()
        await strategy.close(1)
        assert (decode.freed, strategy.bookings_active) == (["a"], 0)

    async def test_a_request_without_ids_is_picked_by_load_for_nobody_else_names_a_prefill_worker(
        self, strategy, prefill
    ):
        pick = await strategy.pick(request(token_ids=None), ENDPOINTS)
        assert "x-dynamo-prefill-instance-id" in pick.request_headers
        assert len(prefill.queries[0].token_ids) == 0


class TestQueryRules:
    def query(self, rules: QueryRules | None = None, **fields):
        return (rules or QueryRules()).query(RoutingRequest("r", "model", IDS, **fields))

    def test_the_tenant_and_the_adapter_decide_whose_cached_blocks_count(self):
        query = self.query(headers={"x-tenant-id": "acme"}, lora_name="sql")
        assert (query.cache_namespace, query.lora_name) == ("acme", "sql")

    def test_the_tenants_header_is_configurable_and_can_be_left_out(self):
        headers = {"x-tenant-id": "acme", "x-org": "org"}
        assert (
            self.query(QueryRules(cache_namespace_header="x-org"), headers=headers).cache_namespace == "org"
        )
        assert self.query(QueryRules(cache_namespace_header=""), headers=headers).cache_namespace == ""

    @pytest.mark.parametrize(("priority", "strict"), [(-5, 0), (0, 0), (7, 7), (2**40, 2**32 - 1)])
    def test_dynamos_priority_has_no_sign_and_32_bits(self, priority, strict):
        assert self.query(priority=priority).strict_priority == strict

    @pytest.mark.parametrize(
        ("priority", "name"), [(-2, ""), (-1, "batch"), (0, "batch"), (10, "chat"), (99, "chat")]
    )
    def test_a_priority_belongs_to_the_highest_class_it_reaches(self, priority, name):
        rules = QueryRules(policy_classes={"chat": 10, "batch": -1})
        assert self.query(rules, priority=priority).policy_class == name


class TestFallback(StrategyContract):
    @pytest.fixture
    def harness(self):
        router = FakeWorkerRouter(*(endpoint.dynamo_instance_id for endpoint in ENDPOINTS))
        strategy = DynamoStrategy("dynamo", router)
        chain = FallbackStrategy([Step(strategy, 5.0)], lambda fallback: None)
        return Harness(chain, ENDPOINTS, lambda: strategy.bookings_active + len(router.booked))

    @pytest.fixture
    def seen(self):
        return []

    async def test_a_request_without_ids_falls_from_dynamo_to_round_robin(self, seen):
        first = DynamoStrategy("dynamo", FakeWorkerRouter(100))
        chain = FallbackStrategy([Step(first, 1.0), Step(RoundRobin("round-robin"))], seen.append)
        pick = await chain.pick(request(token_ids=None), ENDPOINTS)
        fallback = Fallback("dynamo", StrategyFault.NO_TOKEN_IDS)
        assert (pick.strategy, pick.fallbacks, seen) == ("round-robin", (fallback,), [fallback])
        assert (pick.destination.first, pick.request_headers) == (ENDPOINTS[0], {})
        assert pick.cached_tokens is None

    async def test_the_bookkeeping_reaches_the_strategy_that_picked(self, seen):
        broken = FakeStrategy("broken", StrategyError(StrategyFault.FAILED, "it is"))
        working = FakeStrategy("working")
        pick = await FallbackStrategy([Step(broken), Step(working)], seen.append).pick(request(), ENDPOINTS)
        await pick.first_token()
        await pick.finished(Termination.REJECTED)
        assert working.made[0].prefilled
        assert working.made[0].terminations == [Termination.REJECTED]

    async def test_a_strategy_that_is_late_is_passed_over_and_its_booking_freed(self, seen):
        router = FakeWorkerRouter(100)
        router.gate = asyncio.Event()
        slow = DynamoStrategy("dynamo", router)
        chain = FallbackStrategy([Step(slow, 0.02), Step(RoundRobin("round-robin"))], seen.append)
        pick = await chain.pick(request("late"), ENDPOINTS)
        assert (pick.strategy, seen) == ("round-robin", [Fallback("dynamo", StrategyFault.DEADLINE)])
        router.gate.set()
        await slow.close(1)
        assert (router.freed, slow.bookings_active) == (["late"], 0)

    async def test_where_none_can_pick_the_last_error_is_raised_and_all_are_counted(self, seen):
        chain = FallbackStrategy(
            [
                Step(FakeStrategy("a", StrategyError(StrategyFault.NO_WORKERS, ""))),
                Step(FakeStrategy("b", StrategyError(StrategyFault.OVERLOADED, ""))),
            ],
            seen.append,
        )
        with pytest.raises(StrategyError) as caught:
            await chain.pick(request(), ENDPOINTS)
        assert caught.value.fault is StrategyFault.OVERLOADED
        assert [fallback.strategy for fallback in seen] == ["a", "b"]

    def test_it_needs_a_step(self, seen):
        with pytest.raises(ValueError, match="at least one"):
            FallbackStrategy([], seen.append)
