"""Strategy `internal`: the strategy contract, the reference's behaviours, and its books."""

from base64 import urlsafe_b64encode
from random import Random

import pytest

from epp_adapter.endpoints import Endpoint, EndpointSnapshot, FixedEndpoints, candidates, parse_subset_hint
from epp_adapter.exchange import EppExchange, Outcome, Routing
from epp_adapter.routing import plugins
from epp_adapter.routing.approx_prefix import ApproximatePrefixes
from epp_adapter.routing.fallback import FallbackStrategy, Step
from epp_adapter.routing.filters import ROLE_LABEL
from epp_adapter.routing.load import EndpointLoad, FixedLoads
from epp_adapter.routing.pickers import MaxScorePicker, RandomPicker
from epp_adapter.routing.prefix import FixedPrefixes, Overlap
from epp_adapter.routing.profile import Profile, Schedule, SingleProfileHandler, WeightedScorer
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.saturation import UtilizationLimits
from epp_adapter.routing.scheduler import InternalStrategy, PrefixOptions
from epp_adapter.routing.sessions import SessionTable
from epp_adapter.routing.strategy import FakeStrategy, RoutingRequest, StrategyError, StrategyFault
from extproc.errors import OverloadedError
from extproc.events import Headers, RequestReady, ResponseStarted, StaticMetadata, Termination
from extproc.token_metadata import TokenIds
from tests.epp_adapter.strategy_contract import Harness, StrategyContract

ENDPOINTS = tuple(Endpoint(f"10.0.0.{number}:8000") for number in range(3))
IDS = TokenIds.pack(list(range(160)))
DEFAULT_SCORERS = (
    WeightedScorer(plugins.QUEUE, 2.0),
    WeightedScorer(plugins.KV_CACHE_UTILIZATION, 2.0),
    WeightedScorer(plugins.PrefixScorer(), 3.0),
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def loads(*pairs: tuple[int, float], at: float = 100.0) -> FixedLoads:
    return FixedLoads(
        {
            endpoint.address: EndpointLoad(waiting, 0, utilization, updated_at=at)
            for endpoint, (waiting, utilization) in zip(ENDPOINTS, pairs, strict=False)
        }
    )


def internal(*, scorers=DEFAULT_SCORERS, filters=(), picker=None, clock=None, **options) -> InternalStrategy:
    profile = Profile("default", tuple(filters), tuple(scorers), picker or MaxScorePicker(3))
    return InternalStrategy("internal", SingleProfileHandler(profile), clock=clock or Clock(), **options)


def request(token_ids: TokenIds | None = IDS, **fields) -> RoutingRequest:
    return RoutingRequest("r", "model", token_ids, **fields)


async def addresses(strategy, among=ENDPOINTS, **fields) -> list[str]:
    pick = await strategy.pick(request(**fields), among)
    await pick.finished(Termination.ENDED)
    return [endpoint.address for endpoint in pick.destination.endpoints]


class TestContractWithApproximatePrefixes(StrategyContract):
    @pytest.fixture
    def harness(self):
        strategy = internal(prefixes=PrefixOptions(ApproximatePrefixes()), loads=loads((0, 0.1), (1, 0.2)))
        return Harness(strategy, ENDPOINTS, strategy.requests_in_flight)


class TestContractWithNothingButARandomPicker(StrategyContract):
    @pytest.fixture
    def harness(self):
        strategy = internal(scorers=(), picker=RandomPicker(2, Random(1)))
        return Harness(strategy, ENDPOINTS, strategy.requests_in_flight)


class TestTheReferencesBehaviours:
    """Facts: gie.md, "Behaviours of the reference EPP to match"."""

    @pytest.fixture
    def strategy(self):
        return internal(loads=loads((3, 0.2), (0, 0.1), (10, 0.2)))

    async def test_the_least_loaded_endpoint_is_picked_and_fallbacks_follow_by_score(self, strategy):
        assert await addresses(strategy) == ["10.0.0.1:8000", "10.0.0.0:8000", "10.0.0.2:8000"]

    async def test_a_subset_that_names_only_a_loaded_endpoint_gets_it(self, strategy):
        hint = parse_subset_hint(["10.0.0.2:8000"])
        among = candidates(EndpointSnapshot(ENDPOINTS), hint)
        assert await addresses(strategy, among) == ["10.0.0.2:8000"]

    async def test_a_held_prefix_outweighs_a_short_queue(self):
        known = FixedPrefixes({"10.0.0.0:8000": Overlap(10, 10)})
        strategy = internal(loads=loads((3, 0.2), (0, 0.1), (10, 0.2)), prefixes=PrefixOptions(known))
        pick = await strategy.pick(request(), ENDPOINTS)
        assert pick.destination.first.address == "10.0.0.0:8000"
        assert pick.cached_tokens == 160


async def test_without_metrics_what_is_in_flight_spreads_the_requests():
    strategy = internal()
    picks = [await strategy.pick(request(None), ENDPOINTS) for _ in range(6)]
    chosen = [pick.destination.first for pick in picks]
    assert {chosen.count(endpoint) for endpoint in ENDPOINTS} == {2}
    for pick in picks:
        await pick.finished(Termination.CANCELLED)
    assert strategy.requests_in_flight() == 0


async def test_a_burst_between_two_readings_does_not_go_to_one_endpoint():
    clock = Clock()
    strategy = internal(
        scorers=(WeightedScorer(plugins.QUEUE),), loads=loads((0, 0.1), (2, 0.1)), clock=clock
    )
    clock.now = 100.1
    chosen = [(await strategy.pick(request(), ENDPOINTS[:2])).destination.first.address for _ in range(6)]
    assert chosen.count("10.0.0.0:8000") == 4
    assert chosen.count("10.0.0.1:8000") == 2


async def test_a_reading_that_has_seen_them_takes_the_place_of_what_is_in_flight():
    clock = Clock()
    readings = loads((0, 0.1), (1, 0.1))
    strategy = internal(scorers=(WeightedScorer(plugins.QUEUE),), loads=readings, clock=clock)
    for _ in range(3):
        await strategy.pick(request(), ENDPOINTS[:1])
    readings.replace("10.0.0.0:8000", EndpointLoad(0, 3, 0.1, updated_at=101.0))
    clock.now = 101.0
    assert (await addresses(strategy, ENDPOINTS[:2]))[0] == "10.0.0.0:8000"


class TestPrefixes:
    async def test_the_second_turn_follows_the_first(self):
        strategy = internal(prefixes=PrefixOptions(ApproximatePrefixes()))
        first = await strategy.pick(request(), ENDPOINTS)
        await first.finished(Termination.ENDED)
        await addresses(strategy, token_ids=TokenIds.pack(list(range(5000, 5160))))
        second = await strategy.pick(request(TokenIds(IDS.packed + IDS.packed)), ENDPOINTS)
        assert second.destination.first == first.destination.first
        assert (first.cached_tokens, second.cached_tokens) == (0, 160)

    async def test_without_ids_nothing_is_claimed_to_be_cached(self):
        strategy = internal(prefixes=PrefixOptions(ApproximatePrefixes()))
        assert (await strategy.pick(request(None), ENDPOINTS)).cached_tokens is None

    async def test_long_prompts_are_matched_up_to_the_limit(self):
        known = FixedPrefixes()
        strategy = internal(prefixes=PrefixOptions(known, block_size=16, max_tokens=64))
        await strategy.pick(request(), ENDPOINTS)
        assert known.picks == [("10.0.0.0:8000", 4)]

    async def test_a_dynamo_endpoint_is_pinned_to_the_rank_that_holds_the_prefix(self):
        pool = (Endpoint("10.0.0.0:8000", 7), Endpoint("10.0.0.1:8000", 8))
        known = FixedPrefixes({"10.0.0.1:8000": Overlap(2, 2, dp_rank=3)})
        strategy = internal(prefixes=PrefixOptions(known))
        pick = await strategy.pick(request(), pool)
        assert (pick.destination.rendered(), pick.request_headers) == (
            "10.0.0.1:8000",
            {"x-dynamo-dp-rank": "3"},
        )

    async def test_a_dynamo_endpoint_has_no_fallback_since_its_pin_names_one_worker(self):
        pool = (Endpoint("10.0.0.0:8000", 7), Endpoint("10.0.0.1:8000", 8))
        pick = await internal().pick(request(), pool)
        assert (len(pick.destination.endpoints), pick.request_headers) == (1, {})


class TestShedding:
    @pytest.fixture
    def full(self):
        return internal(loads=loads((9, 0.9), (9, 0.9), (9, 0.9)), limits=UtilizationLimits())

    async def test_a_negative_priority_is_shed_from_a_saturated_pool(self, full):
        with pytest.raises(StrategyError) as caught:
            await full.pick(request(priority=-1), ENDPOINTS)
        assert caught.value.fault is StrategyFault.SHED
        assert full.requests_in_flight() == 0

    async def test_others_are_served_from_a_saturated_pool(self, full):
        assert len(await addresses(full)) == 3

    async def test_without_limits_nobody_is_shed(self):
        assert await addresses(internal(loads=loads((9, 0.9))), priority=-1)

    async def test_what_is_shed_is_offered_to_no_other_strategy(self, full):
        seen, other = [], FakeStrategy("other")
        chain = FallbackStrategy([Step(full), Step(other)], seen.append)
        with pytest.raises(StrategyError):
            await chain.pick(request(priority=-1), ENDPOINTS)
        assert other.requests == []
        assert [fallback.fault for fallback in seen] == [StrategyFault.SHED]


def exchange_with(strategy) -> tuple[EppExchange, list]:
    closed: list = []
    ids = iter(range(100))
    routing = Routing(
        endpoints=FixedEndpoints(*ENDPOINTS),
        strategies={"internal": strategy},
        default_strategy="internal",
        clock=Clock(),
        mint_id=lambda: f"id-{next(ids)}",
        observers=(closed.append,),
    )
    return EppExchange(routing), closed


def ready(**headers: str) -> RequestReady:
    return RequestReady(Headers(headers), None, StaticMetadata())


class Shedding:
    name = "internal"

    async def pick(self, request, among):
        raise StrategyError(StrategyFault.SHED, "full")


async def test_the_client_of_a_shed_request_is_told_429_and_why():
    exchange, closed = exchange_with(Shedding())
    with pytest.raises(OverloadedError) as caught:
        await exchange.decide(ready())
    assert caught.value.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
    await exchange.close(Termination.REJECTED)
    assert closed[0].outcome is Outcome.REFUSED_OVERLOADED


class TestFilters:
    async def test_what_a_filter_leaves_is_scored(self):
        pool = tuple(
            Endpoint(endpoint.address, labels={ROLE_LABEL: role})
            for endpoint, role in zip(ENDPOINTS, ("prefill", "decode", "prefill"), strict=True)
        )
        only_decode = plugins.LabelFilter(ROLE_LABEL, frozenset({"decode"}))
        strategy = internal(filters=[only_decode], loads=loads((0, 0.0), (9, 0.9), (0, 0.0)))
        assert await addresses(strategy, pool) == ["10.0.0.1:8000"]

    async def test_a_profile_that_leaves_nobody_is_a_fault_for_the_next_strategy(self):
        strategy = internal(filters=[plugins.TestHeaderFilter()])
        with pytest.raises(StrategyError) as caught:
            await strategy.pick(request(), ENDPOINTS)
        assert caught.value.fault is StrategyFault.FILTERED
        chain = FallbackStrategy([Step(strategy), Step(RoundRobin("rr"))], lambda fallback: None)
        assert (await chain.pick(request(), ENDPOINTS)).strategy == "rr"

    async def test_the_testing_header_chooses(self):
        strategy = internal(filters=[plugins.TestHeaderFilter()])
        headers = {"test-epp-endpoint-selection": "10.0.0.2"}
        assert await addresses(strategy, headers=headers) == ["10.0.0.2:8000"]

    async def test_a_full_endpoint_is_filtered_out(self):
        strategy = internal(
            filters=[plugins.UtilizationFilter(UtilizationLimits())],
            scorers=(),
            loads=loads((9, 0.1), (0, 0.1), (9, 0.1)),
        )
        assert await addresses(strategy) == ["10.0.0.1:8000"]


class TestOtherScorers:
    async def test_running_requests_active_requests_and_lora(self):
        readings = FixedLoads(
            {
                "10.0.0.0:8000": EndpointLoad(0, 5, 0.0, 100.0),
                "10.0.0.1:8000": EndpointLoad(0, 1, 0.0, 100.0),
                "10.0.0.2:8000": EndpointLoad(0, 9, 0.0, 100.0, active_adapters=frozenset({"tuned"})),
            }
        )
        running = internal(scorers=(WeightedScorer(plugins.RUNNING_REQUESTS),), loads=readings)
        assert (await addresses(running))[0] == "10.0.0.1:8000"
        lora = internal(scorers=(WeightedScorer(plugins.LORA_AFFINITY),), loads=readings)
        assert (await addresses(lora, lora_name="tuned"))[0] == "10.0.0.2:8000"
        active = internal(scorers=(WeightedScorer(plugins.ACTIVE_REQUESTS),))
        chosen = [(await active.pick(request(), ENDPOINTS)).destination.first for _ in range(3)]
        assert set(chosen) == set(ENDPOINTS)

    async def test_a_session_token_leads_back_to_its_endpoint_through_the_response(self):
        strategy = internal(scorers=(WeightedScorer(plugins.SessionTokenScorer("x-session-token")),))
        exchange, _ = exchange_with(strategy)
        verdict = await exchange.decide(ready())
        started = ResponseStarted(200, Headers({}), StaticMetadata(), end_of_stream=False)
        token = exchange.edit(started).set_headers["x-session-token"]
        await exchange.close(Termination.ENDED)
        served = verdict.set_headers["x-gateway-destination-endpoint"].split(",")[0]
        for _ in range(4):
            assert (await addresses(strategy, headers={"x-session-token": token}))[0] == served

    async def test_a_token_of_somebody_elses_making_can_only_name_a_candidate(self):
        strategy = internal(scorers=(WeightedScorer(plugins.SessionTokenScorer("x-session-token")),))
        forged = urlsafe_b64encode(b"169.254.169.254:80").decode()
        assert await addresses(strategy, headers={"x-session-token": forged})

    async def test_a_session_id_keeps_its_endpoint(self):
        scorer = plugins.SessionIdScorer("x-session-id", SessionTable())
        strategy = internal(scorers=(WeightedScorer(scorer),))
        firsts = {name: (await addresses(strategy, headers={"x-session-id": name}))[0] for name in "abc"}
        assert len(set(firsts.values())) == 3
        for name in "cabacb":
            assert (await addresses(strategy, headers={"x-session-id": name}))[0] == firsts[name]

    async def test_weights_decide_between_scorers(self):
        known = FixedPrefixes({"10.0.0.0:8000": Overlap(10, 10)})
        for weight, expected in ((0.5, "10.0.0.1:8000"), (2.0, "10.0.0.0:8000")):
            scorers = (WeightedScorer(plugins.QUEUE), WeightedScorer(plugins.PrefixScorer(), weight))
            strategy = internal(
                scorers=scorers, loads=loads((5, 0), (0, 0), (5, 0)), prefixes=PrefixOptions(known)
            )
            assert (await addresses(strategy))[0] == expected


async def test_a_profile_handler_may_run_several_profiles_and_add_headers():
    """The seam for disaggregated serving."""

    class PrefillAndDecode:
        def __init__(self) -> None:
            self.prefill, self.decode = (
                Profile(role, (plugins.LabelFilter("role", frozenset({role})),), (), MaxScorePicker(1))
                for role in ("prefill", "decode")
            )

        def schedule(self, run):
            (prefill,), decode = run(self.prefill), run(self.decode)
            picks = ((self.prefill, prefill), (self.decode, decode[0]))
            return Schedule(decode, picks, {"x-prefiller-host-port": prefill.address})

    pool = (
        Endpoint("10.0.0.0:8000", labels={"role": "decode"}),
        Endpoint("10.0.0.1:8000", labels={"role": "prefill"}),
    )
    strategy = InternalStrategy("internal", PrefillAndDecode(), clock=Clock())
    pick = await strategy.pick(request(), pool)
    assert pick.destination.rendered() == "10.0.0.0:8000"
    assert pick.request_headers == {"x-prefiller-host-port": "10.0.0.1:8000"}
