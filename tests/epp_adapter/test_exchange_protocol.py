"""Protocol 004 beyond the choice itself: fallbacks, feedback, control headers, conformance, rewriting."""

import json
from dataclasses import replace

import pytest

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.exchange import EppExchange, Outcome, Routing
from epp_adapter.model_rewriting import ModelRewriting
from epp_adapter.passive_health import HealthOptions, PassiveHealth, Served
from epp_adapter.pool_rules import FixedRules, ModelRewrite, PoolRules, RewriteRule, RewriteTarget
from epp_adapter.response_body import Usage
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.strategy import FakeStrategy
from extproc.errors import BadRequestError, NoReadyEndpointError
from extproc.events import (
    BodyMode,
    Headers,
    RequestReady,
    ResponseChunk,
    ResponseStarted,
    StaticMetadata,
    Termination,
)
from extproc.verdict import NO_EDIT

A, B, C = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2, 3))
RULES = FixedRules(
    PoolRules(
        objectives={"batch": -3, "urgent": 7},
        rewrites=(ModelRewrite("r", (RewriteRule(frozenset({"food"}), (RewriteTarget("lora-7"),)),)),),
    )
)


class Bench:
    """What exchanges share, with what they reported."""

    def __init__(self):
        self.now = 0.0
        self.records = []
        self.strategy = FakeStrategy()
        self.endpoints = FixedEndpoints(A, B, C)
        self.health = PassiveHealth(HealthOptions())
        self.routing = Routing(
            endpoints=self.endpoints,
            strategies={"fake": self.strategy, "round-robin": RoundRobin("round-robin")},
            default_strategy="fake",
            clock=lambda: self.now,
            mint_id=lambda: "00000000-0000-4000-8000-000000000001",
            observers=(self.records.append,),
            health=self.health,
        )

    def exchange(self, **changes) -> EppExchange:
        return EppExchange(replace(self.routing, **changes))


@pytest.fixture
def bench():
    return Bench()


def ready(headers=None, body=None, response=BodyMode.NONE) -> RequestReady:
    return RequestReady(
        Headers({":method": "POST", ":path": "/v1/completions", **(headers or {})}),
        body,
        StaticMetadata(),
        body_replaceable=body is not None,
        response_body=response,
    )


def started(status=200, served=None, headers=None) -> ResponseStarted:
    metadata = {} if served is None else {"envoy.lb": {"x-gateway-destination-endpoint-served": served}}
    return ResponseStarted(status, Headers(headers or {}), StaticMetadata(metadata), end_of_stream=False)


async def test_a_destination_names_as_many_more_as_are_asked_for(bench):
    verdict = await bench.exchange(destination_fallbacks=1).decide(ready())
    assert verdict.set_headers["x-gateway-destination-endpoint"] == "10.0.0.1:8000,10.0.0.2:8000"
    assert verdict.metadata["envoy.lb"] == {"x-gateway-destination-endpoint": "10.0.0.1:8000,10.0.0.2:8000"}


async def test_a_pinned_destination_names_one(bench):
    bench.endpoints.replace(Endpoint(A.address, dynamo_instance_id=1), B)
    verdict = await bench.exchange(destination_fallbacks=1).decide(ready())
    assert verdict.set_headers["x-gateway-destination-endpoint"] == "10.0.0.1:8000"


class TestFeedback:
    async def answered(self, bench, *events, **changes):
        exchange = bench.exchange(**changes)
        await exchange.decide(ready())
        for event in events:
            exchange.edit(event)
        await exchange.close(Termination.ENDED)
        return bench.records[-1]

    async def next_choice(self, bench):
        verdict = await bench.exchange().decide(ready())
        return verdict.set_headers["x-gateway-destination-endpoint"]

    async def test_a_failed_endpoint_is_left_out_before_its_answer_goes_on(self, bench):
        exchange = bench.exchange()
        await exchange.decide(ready())
        exchange.edit(started(503, A.address))
        assert await self.next_choice(bench) == B.address

    async def test_one_that_was_passed_over_is_left_out_and_counted(self, bench):
        record = await self.answered(bench, started(200, B.address), destination_fallbacks=1)
        assert record.served is Served.FALLBACK
        assert await self.next_choice(bench) == B.address

    async def test_who_served_as_chosen_stays(self, bench):
        record = await self.answered(bench, started(200, A.address))
        assert record.served is Served.CHOSEN
        assert await self.next_choice(bench) == A.address

    async def test_a_503_of_envoys_own_circuit_breaker_is_nobodys_failure(self, bench):
        record = await self.answered(bench, started(503, None, {"x-envoy-overloaded": "true"}))
        assert record.served is None
        assert await self.next_choice(bench) == A.address

    async def test_a_504_among_served_requests_changes_nothing_and_two_in_a_row_do(self, bench):
        for status in (504, 200, 504):
            await self.answered(bench, started(status, A.address))
            bench.strategy.made.clear()
            assert await self.next_choice(bench) == A.address
        await self.answered(bench, started(504, A.address))
        assert await self.next_choice(bench) == B.address

    async def test_a_pinned_request_that_is_refused_has_its_endpoint_asked(self, bench):
        pinned = Endpoint(A.address, dynamo_instance_id=1)
        bench.endpoints.replace(pinned)
        await self.answered(bench, started(400, A.address))
        assert await self.next_choice(bench) == A.address
        assert bench.health.due(0.0, limit=9) == (pinned,)
        bench.health.probed(pinned, alive=False, now=0.0)
        with pytest.raises(NoReadyEndpointError):
            await bench.exchange().decide(ready())

    async def test_where_all_are_suspected_all_are_candidates(self, bench):
        for endpoint in (A, B, C):
            bench.strategy.made.clear()
            await self.answered(bench, started(503, endpoint.address))
        assert bench.health.set_aside == 3
        assert await self.next_choice(bench) == A.address

    async def test_where_all_are_known_to_be_down_the_answer_is_503(self, bench):
        bench.endpoints.replace(A)
        await self.answered(bench, started(503, A.address))
        for endpoint in bench.health.due(99.0, limit=9):
            bench.health.probed(endpoint, alive=False, now=99.0)
        with pytest.raises(NoReadyEndpointError, match="no endpoint answers") as caught:
            await bench.exchange().decide(ready())
        assert caught.value.headers == {"x-llm-d-request-dropped-reason": "rejected-no-endpoints"}


class TestControlHeaders:
    @pytest.mark.parametrize(
        ("headers", "priority"),
        [
            ({"x-llm-d-inference-objective": "batch"}, -3),
            ({"x-gateway-inference-objective": "batch"}, -3),
            ({"x-gateway-inference-objective": "batch", "x-llm-d-inference-objective": " urgent "}, 7),
            ({"x-gateway-inference-objective": "batch", "x-llm-d-inference-objective": ""}, 0),
            ({"x-llm-d-inference-objective": "unheard-of"}, 0),
            ({}, 0),
        ],
    )
    async def test_an_objective_gives_its_priority_and_the_newer_name_wins(self, bench, headers, priority):
        rules = FixedRules(PoolRules(RULES.rules().objectives))
        await bench.exchange(rewriting=ModelRewriting(rules)).decide(ready(headers))
        assert bench.strategy.requests[0].priority == priority

    async def test_none_of_them_reaches_the_model_server(self, bench):
        verdict = await bench.exchange().decide(ready())
        assert {
            "x-routing-strategy",
            "x-llm-d-inference-objective",
            "x-gateway-inference-objective",
            "x-llm-d-inference-fairness-id",
            "x-gateway-inference-fairness-id",
            "x-llm-d-model-name-rewrite",
            "x-gateway-model-name-rewrite",
            "x-gateway-destination-endpoint",
            "x-gateway-destination-endpoint-subset",
            "x-gateway-destination-endpoint-served",
            "x-llm-d-prefiller-host-port",
            "x-prefiller-host-port",
        } <= set(verdict.remove_headers)


class TestConformance:
    async def test_a_test_steers_the_choice_by_ip_or_by_address(self, bench):
        for selection in ("10.0.0.2", "10.0.0.2:8000", "10.9.9.9, 10.0.0.2"):
            verdict = await bench.exchange(conformance=True).decide(
                ready({"test-epp-endpoint-selection": selection})
            )
            assert verdict.set_headers["x-gateway-destination-endpoint"] == B.address
            assert "test-epp-endpoint-selection" in verdict.remove_headers

    async def test_a_selection_that_names_nobody_is_503(self, bench):
        with pytest.raises(NoReadyEndpointError):
            await bench.exchange(conformance=True).decide(ready({"test-epp-endpoint-selection": "1.2.3.4"}))

    async def test_it_steers_nothing_unless_that_is_enabled(self, bench):
        exchange = bench.exchange()
        verdict = await exchange.decide(ready({"test-epp-endpoint-selection": "10.0.0.2"}))
        assert verdict.set_headers["x-gateway-destination-endpoint"] == A.address
        assert "test-epp-endpoint-selection" not in verdict.remove_headers
        assert exchange.edit(started(200, A.address)) is NO_EDIT

    async def test_the_response_says_who_was_chosen_and_who_served(self, bench):
        exchange = bench.exchange(conformance=True)
        await exchange.decide(ready())
        assert exchange.edit(started(200, B.address)).set_headers == {
            "x-conformance-test-served-endpoint": "10.0.0.2:8000",
            "x-conformance-test-selected-endpoint": "10.0.0.1:8000",
            "x-went-into-resp-headers": "true",
        }

    async def test_a_gateway_that_does_not_report_is_shown_to(self, bench):
        exchange = bench.exchange(conformance=True)
        await exchange.decide(ready())
        headers = exchange.edit(started()).set_headers
        assert headers["x-conformance-test-served-endpoint"].startswith("fail: missing")


class TestRewriting:
    BODY = b'{"model": "food", "prompt": "hi"}'
    REWRITING = ModelRewriting(RULES, random=lambda: 0.0)

    async def routed(self, bench, response=BodyMode.STREAMED):
        exchange = bench.exchange(rewriting=self.REWRITING)
        return exchange, await exchange.decide(ready(body=self.BODY, response=response))

    async def test_the_model_server_and_the_scheduler_get_the_other_model(self, bench):
        _, verdict = await self.routed(bench)
        assert json.loads(verdict.body)["model"] == "lora-7"
        assert bench.strategy.requests[0].model == "lora-7"

    async def test_the_client_gets_the_name_it_asked_for_and_usage_is_reported(self, bench):
        exchange, _ = await self.routed(bench)
        edit = exchange.edit(started(headers={"content-type": "application/json", "content-length": "80"}))
        assert edit.remove_headers == ("content-length",)
        body = b'{"model": "lora-7", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
        first = exchange.edit(ResponseChunk(body[:14], end_of_stream=False))
        second = exchange.edit(ResponseChunk(body[14:], end_of_stream=True))
        assert json.loads(first.body + second.body)["model"] == "food"
        await exchange.close(Termination.ENDED)
        assert (bench.records[0].usage, bench.records[0].rewritten) == (Usage(5, 2), True)

    async def test_a_compressed_response_passes_as_it_is(self, bench):
        exchange, _ = await self.routed(bench)
        assert exchange.edit(started(headers={"content-encoding": "gzip"})) is NO_EDIT
        assert exchange.edit(ResponseChunk(b'"model":"lora-7"', end_of_stream=True)) is NO_EDIT

    async def test_a_request_that_cannot_be_served_so_is_counted_as_refused(self, bench):
        exchange = bench.exchange()
        with pytest.raises(BadRequestError):
            await exchange.decide(ready({"x-gateway-model-name-rewrite": "lora-8"}))
        await exchange.close(Termination.REJECTED)
        assert bench.records[0].outcome is Outcome.REFUSED_BAD_REQUEST


async def test_usage_is_read_though_nothing_is_rewritten(bench):
    exchange = bench.exchange()
    await exchange.decide(ready())
    exchange.edit(started(headers={"content-type": "text/event-stream; charset=utf-8"}))
    event = b'data: {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
    assert exchange.edit(ResponseChunk(event, end_of_stream=False)) is NO_EDIT
    await exchange.close(Termination.CANCELLED)
    assert bench.records[0].usage == Usage(5, 2)
