import asyncio
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.exchange import EppExchange, ExchangeRecord, Outcome, Routing
from epp_adapter.exchange_record import RequestRouted
from epp_adapter.records.finder import Finding, RecordFinder, RecordSource, RecordState
from epp_adapter.records.tokenizer import FakeTokenizer
from epp_adapter.routing.dynamo import DynamoStrategy
from epp_adapter.routing.dynamo_bookings import FakeWorkerRouter
from epp_adapter.routing.fallback import FallbackStrategy, Step
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.strategy import FakeStrategy, StrategyError, StrategyFault
from extproc import wellknown
from extproc.errors import (
    ChainError,
    DeadlineExceededError,
    NoReadyEndpointError,
    OverloadedError,
    UnknownStrategyError,
)
from extproc.events import (
    Headers,
    RequestReady,
    ResponseChunk,
    ResponseStarted,
    ResponseTrailers,
    StaticMetadata,
    Termination,
)
from extproc.token_metadata import Kind, RecordFault, TokenIds, TokenRecord, encode
from extproc.verdict import NO_EDIT

A = Endpoint("10.0.0.1:8000")
B = Endpoint("10.0.0.2:8000", dynamo_instance_id=2**64 - 1)
RECORD = TokenRecord("qwen3", "sha256:0", TokenIds.pack(list(range(40))), Kind.CHAT, engine_exact=True)
REQUEST_ID = "7b6c2a44-9f0e-4a35-8f4e-0d5b7c1f2a33"


@dataclass
class Bench:
    """An exchange's surroundings, all fake, and what it reported."""

    endpoints: FixedEndpoints = field(default_factory=lambda: FixedEndpoints(A, B))
    strategy: FakeStrategy = field(default_factory=FakeStrategy)
    records: list[ExchangeRecord] = field(default_factory=list)
    now: float = 100.0

    def routing(self, **changes) -> Routing:
        ids = count(1)
        values = {
            "endpoints": self.endpoints,
            "strategies": {"fake": self.strategy, "round-robin": RoundRobin("round-robin")},
            "default_strategy": "fake",
            "clock": lambda: self.now,
            "mint_id": lambda: f"00000000-0000-4000-8000-{next(ids):012d}",
            "observers": (self.records.append,),
        }
        return Routing(**(values | changes))

    def exchange(self, **changes) -> EppExchange:
        return EppExchange(self.routing(**changes))


@pytest.fixture
def bench():
    return Bench()


def ready(headers=None, record=None, hint=None, namespace="tokenext") -> RequestReady:
    metadata = {}
    if record is not None:
        metadata[namespace] = {"record": record}
    if hint is not None:
        metadata[wellknown.SUBSET_NAMESPACE] = {wellknown.SUBSET_KEY: hint}
    return RequestReady(
        headers=Headers(
            {
                ":method": "POST",
                ":path": "/v1/chat/completions",
                "x-request-id": REQUEST_ID,
                **(headers or {}),
            }
        ),
        body=None,
        metadata=StaticMetadata(metadata),
    )


async def refusal(exchange: EppExchange, request: RequestReady) -> ChainError:
    with pytest.raises(ChainError) as caught:
        await exchange.decide(request)
    return caught.value


async def test_a_request_with_more_headers_than_allowed_is_refused_before_anything_is_asked(bench):
    looked_for = []
    exchange = bench.exchange(records=RecordFinder(observe=looked_for.append), max_headers=9)
    request = ready()
    error = await refusal(exchange, replace(request, headers=Headers(dict(request.headers), 10)))
    assert (error.status, error.reason) == (431, "too_many_headers")
    assert looked_for == []
    await exchange.close(Termination.REJECTED)
    (record,) = bench.records
    assert (record.outcome, record.request_id) == (Outcome.REFUSED_TOO_MANY_HEADERS, REQUEST_ID)
    assert record.strategy == ""


async def test_a_request_with_as_many_headers_as_allowed_is_routed(bench):
    request = ready()
    exchange = bench.exchange(max_headers=9)
    assert await exchange.decide(replace(request, headers=Headers(dict(request.headers), 9)))


async def test_header_and_metadata_carry_the_same_destination(bench):
    verdict = await bench.exchange().decide(ready())
    assert verdict.set_headers == {"x-gateway-destination-endpoint": "10.0.0.1:8000"}
    assert verdict.metadata == {"envoy.lb": {"x-gateway-destination-endpoint": "10.0.0.1:8000"}}
    assert verdict.body is None
    assert not verdict.clear_route_cache


@pytest.mark.parametrize("namespace", ["tokenext", "envoy.lb"])
async def test_the_record_stays_without_its_ids_beside_the_destination(bench, namespace):
    records = RecordFinder(namespace=namespace, take_ids_out=True)
    request = ready(record=encode(RECORD), namespace=namespace)
    verdict = await bench.exchange(records=records).decide(request)
    without_ids = {name: value for name, value in encode(RECORD).items() if name != "tokenIds"}
    assert verdict.metadata[namespace]["record"] == without_ids
    assert verdict.metadata["envoy.lb"]["x-gateway-destination-endpoint"] == "10.0.0.1:8000"
    assert bench.strategy.requests[-1].token_ids == RECORD.token_ids


async def test_no_record_is_written_where_none_stood(bench):
    found_elsewhere = RecordFinder(take_ids_out=True, tokenizer=FakeTokenizer())
    asking = ready()
    verdict = await bench.exchange(records=found_elsewhere).decide(
        RequestReady(asking.headers, b"{}", asking.metadata)
    )
    assert bench.strategy.requests[-1].token_ids
    assert set(verdict.metadata) == {"envoy.lb"}


async def test_a_record_of_no_ids_is_routed_without_any(bench):
    nothing = replace(RECORD, token_ids=TokenIds(b""))
    request = ready(record=encode(nothing))
    verdict = await bench.exchange(records=RecordFinder(take_ids_out=True)).decide(request)
    assert verdict.metadata["tokenext"]["record"] == encode(nothing)
    assert not bench.strategy.requests[-1].token_ids


async def test_route_cache_is_cleared_when_so_configured(bench):
    assert (await bench.exchange(clear_route_cache=True).decide(ready())).clear_route_cache


async def test_every_header_that_only_the_chain_may_set_is_removed(bench):
    verdict = await bench.exchange().decide(ready())
    assert set(verdict.remove_headers) == {*wellknown.CHAIN_OWNED_HEADERS, *wellknown.PICKER_HEADERS}


@pytest.mark.parametrize("strategy", ["fake", "round-robin"])
async def test_an_endpoint_with_a_dynamo_instance_is_pinned_whoever_picked(bench, strategy):
    bench.endpoints.replace(B)
    verdict = await bench.exchange().decide(ready({"x-routing-strategy": strategy}))
    assert verdict.set_headers["x-dynamo-worker-instance-id"] == "18446744073709551615"


async def test_a_pick_adds_its_own_headers(bench):
    dynamo = DynamoStrategy("dynamo", FakeWorkerRouter(B.dynamo_instance_id))
    exchange = bench.exchange(strategies={"dynamo": dynamo}, default_strategy="dynamo")
    verdict = await exchange.decide(ready(record=encode(RECORD)))
    assert verdict.set_headers == {
        "x-gateway-destination-endpoint": "10.0.0.2:8000",
        "x-dynamo-worker-instance-id": "18446744073709551615",
        "x-dynamo-dp-rank": "0",
    }
    await exchange.close(Termination.ENDED)


async def test_the_strategy_gets_the_record_and_an_id_of_our_own(bench):
    await bench.exchange().decide(ready(record=encode(RECORD)))
    (asked,) = bench.strategy.requests
    assert (asked.model, asked.token_ids) == ("qwen3", RECORD.token_ids)
    assert asked.request_id == "00000000-0000-4000-8000-000000000001"


async def test_requests_of_one_client_id_are_booked_under_different_ids(bench):
    routing = bench.routing()
    for _ in range(2):
        await EppExchange(routing).decide(ready())
    first, second = (asked.request_id for asked in bench.strategy.requests)
    assert first != second


async def test_the_record_is_read_in_the_configured_namespace(bench):
    exchange = bench.exchange(records=RecordFinder("envoy.lb"))
    await exchange.decide(ready(record=encode(RECORD), namespace="envoy.lb"))
    assert bench.strategy.requests[0].token_ids == RECORD.token_ids


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (None, RecordState.ABSENT),
        (encode(RECORD), RecordState.USED),
        ("text", RecordFault.NOT_AN_OBJECT),
        ({"tokenIds": "!!", "kind": "KIND_CHAT"}, RecordFault.BAD_BASE64),
        ({"kind": "KIND_FUTURE"}, RecordFault.UNKNOWN_KIND),
        (encode(RECORD) | {"tokenCount": 3}, RecordFault.COUNT_MISMATCH),
    ],
)
async def test_a_record_is_used_or_ignored_with_its_fault_and_the_request_is_routed(bench, value, state):
    exchange = bench.exchange()
    await exchange.decide(ready(record=value))
    await exchange.close(Termination.ENDED)
    used = state is RecordState.USED
    assert bench.strategy.requests[0].token_ids == (RECORD.token_ids if used else None)
    assert bench.records[0].findings == (Finding(RecordSource.METADATA, state),)
    assert bench.records[0].token_count == (40 if used else 0)
    assert bench.records[0].outcome is Outcome.ROUTED


async def test_a_request_without_a_record_is_routed_by_the_ids_that_tokenext_is_called_for(bench):
    exchange = bench.exchange(records=RecordFinder(tokenizer=FakeTokenizer()))
    asking = ready()
    await exchange.decide(RequestReady(asking.headers, b"{}", asking.metadata))
    await exchange.close(Termination.ENDED)
    assert bench.strategy.requests[0].token_ids == TokenIds.pack(list(b"{}"))
    assert bench.records[0].findings[-1] == Finding(RecordSource.CALLOUT, RecordState.USED)


@pytest.mark.parametrize(("asked", "picked"), [({}, "round-robin"), ({"x-routing-strategy": "fake"}, "fake")])
async def test_a_model_may_have_a_strategy_of_its_own_and_a_request_may_name_another(bench, asked, picked):
    exchange = bench.exchange(strategy_of={"qwen3": "round-robin"})
    await exchange.decide(ready(asked, record=encode(RECORD)))
    await exchange.close(Termination.ENDED)
    assert bench.records[0].strategy == picked


async def test_the_name_of_an_adapter_reaches_the_strategy(bench):
    await bench.exchange(loras=frozenset({"qwen3"})).decide(ready(record=encode(RECORD)))
    await bench.exchange().decide(ready(record=encode(RECORD)))
    assert [asked.lora_name for asked in bench.strategy.requests] == ["qwen3", ""]


async def test_only_endpoints_that_the_gateway_allows_are_candidates(bench):
    verdict = await bench.exchange().decide(ready(hint=["10.0.0.2:8000"]))
    assert verdict.set_headers["x-gateway-destination-endpoint"] == "10.0.0.2:8000"


@pytest.mark.parametrize("hint", [[], "", ["10.0.0.9:8000"], {"malformed": 1.0}])
async def test_a_hint_that_allows_nothing_is_503_with_the_reason(bench, hint):
    error = await refusal(bench.exchange(), ready(hint=hint))
    assert isinstance(error, NoReadyEndpointError)
    assert error.headers == {"x-llm-d-request-dropped-reason": "rejected-no-endpoints"}
    assert not bench.strategy.requests


async def test_no_ready_endpoint_is_503_with_the_reason(bench):
    bench.endpoints.replace(Endpoint("10.0.0.1:8000", ready=False))
    error = await refusal(bench.exchange(), ready())
    assert (error.status, error.headers) == (
        503,
        {"x-llm-d-request-dropped-reason": "rejected-no-endpoints"},
    )


async def test_a_request_may_name_its_strategy(bench):
    exchange = bench.exchange()
    await exchange.decide(ready({"x-routing-strategy": "round-robin"}))
    await exchange.close(Termination.ENDED)
    assert bench.records[0].strategy == "round-robin"


async def test_an_unknown_strategy_is_400_and_lists_the_names_but_not_the_clients_word(bench):
    error = await refusal(bench.exchange(), ready({"x-routing-strategy": "magic<b>"}))
    assert isinstance(error, UnknownStrategyError)
    assert error.message == "x-routing-strategy: one of fake, round-robin"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (StrategyFault.OVERLOADED, OverloadedError),
        (StrategyFault.SHED, OverloadedError),
        (StrategyFault.DEADLINE, DeadlineExceededError),
        (StrategyFault.NO_WORKERS, NoReadyEndpointError),
        (StrategyFault.FAILED, NoReadyEndpointError),
    ],
)
async def test_where_no_strategy_can_pick_the_client_is_told_by_status(bench, fault, error):
    bench.strategy.error = StrategyError(fault, "detail")
    exchange = bench.exchange()
    assert isinstance(await refusal(exchange, ready()), error)
    await exchange.close(Termination.REJECTED)
    assert bench.records[0].outcome.startswith("refused_")
    assert bench.records[0].strategy == ""


async def test_a_missing_request_id_is_minted_and_sent_on(bench):
    exchange = bench.exchange()
    verdict = await exchange.decide(ready({"x-request-id": ""}))
    await exchange.close(Termination.ENDED)
    assert verdict.set_headers["x-request-id"] == bench.records[0].request_id != ""
    assert bench.strategy.requests[0].request_id != bench.records[0].request_id


@pytest.mark.parametrize(
    ("given", "kept"),
    [(REQUEST_ID, REQUEST_ID), ("my secret", ""), ("x" * 10_000, ""), (REQUEST_ID + "1", "")],
)
async def test_a_clients_request_id_is_reported_only_if_it_is_a_uuid(bench, given, kept):
    exchange = bench.exchange()
    verdict = await exchange.decide(ready({"x-request-id": given}))
    await exchange.close(Termination.ENDED)
    assert "x-request-id" not in verdict.set_headers
    assert bench.records[0].request_id == kept


async def test_a_record_has_the_traceparent_only_if_it_is_one(bench):
    for given in ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a client's words"):
        exchange = bench.exchange()
        await exchange.decide(ready({"traceparent": given}))
        await exchange.close(Termination.ENDED)
    assert [record.traceparent[:6] for record in bench.records] == ["00-0af", ""]


def started(status: int = 200) -> ResponseStarted:
    return ResponseStarted(status, Headers({}), StaticMetadata(), end_of_stream=False)


async def test_response_headers_mark_the_prompt_as_computed(bench):
    exchange = bench.exchange()
    await exchange.decide(ready())
    await exchange.observe(started())
    assert bench.strategy.made[0].prefilled
    assert exchange.edit(started()) is NO_EDIT


@pytest.mark.parametrize(("headers", "end"), [({"content-length": "12"}, False), ({}, True)])
async def test_a_response_that_begins_whole_is_marked_by_its_end_alone(bench, headers, end):
    """One call less into Dynamo's router for most requests."""
    exchange = bench.exchange()
    await exchange.decide(ready())
    await exchange.observe(ResponseStarted(200, Headers(headers), StaticMetadata(), end_of_stream=end))
    assert not bench.strategy.made[0].prefilled
    await exchange.close(Termination.ENDED)
    assert bench.strategy.made[0].terminations == [Termination.ENDED]


async def test_the_rest_of_a_response_changes_nothing(bench):
    exchange = bench.exchange()
    await exchange.decide(ready())
    await exchange.observe(ResponseChunk(b"data", end_of_stream=True))
    await exchange.observe(ResponseTrailers())
    assert not bench.strategy.made[0].prefilled
    assert not bench.strategy.made[0].terminations


@pytest.mark.parametrize("termination", list(Termination))
async def test_closing_finishes_the_pick_and_reports_exactly_once(bench, termination):
    opened = bench.now
    exchange = bench.exchange()
    await exchange.decide(ready(record=encode(RECORD)))
    bench.now += 2.5
    await exchange.observe(started(201))
    await exchange.close(termination)
    await exchange.close(Termination.FAILED)
    assert bench.strategy.made[0].terminations == [termination]
    assert bench.records == [
        ExchangeRecord(
            outcome=Outcome.ROUTED,
            termination=termination,
            request_id=REQUEST_ID,
            model="qwen3",
            strategy="fake",
            destination="10.0.0.1:8000",
            token_count=40,
            cached_tokens=0,
            findings=(Finding(RecordSource.METADATA, RecordState.USED),),
            pick_seconds=0.0,
            response_status=201,
            total_seconds=2.5,
            decide_seconds=0.0,
            opened=opened,
            pick_began=opened,
        )
    ]


async def test_what_runs_is_told_when_it_is_routed_and_once(bench):
    routed = []
    exchange = bench.exchange(starters=(routed.append,))
    await exchange.decide(ready(record=encode(RECORD)))
    assert routed == [RequestRouted("qwen3", rewritten=False, priority=0)]
    await exchange.close(Termination.ENDED)
    (record,) = bench.records
    assert (record.outcome, record.model, record.rewritten, record.priority) == (
        Outcome.ROUTED, "qwen3", False, 0,
    )  # fmt: skip
    assert len(routed) == 1


async def test_what_is_refused_never_ran(bench):
    routed = []
    bench.endpoints.replace()
    await refusal(bench.exchange(starters=(routed.append,)), ready())
    assert not routed


async def test_a_streamed_response_is_timed_from_the_first_message_on(bench):
    exchange = bench.exchange()
    bench.now += 0.25
    await exchange.decide(ready())
    headers = Headers({"content-type": "text/event-stream"})
    bench.now += 0.25
    exchange.edit(ResponseStarted(200, headers, StaticMetadata(), end_of_stream=False))
    for number in range(3):
        bench.now += 0.5
        exchange.edit(ResponseChunk(b"data: x\n\n", end_of_stream=number == 2))
    await exchange.close(Termination.ENDED)
    (record,) = bench.records
    assert record.decide_seconds == 0.25
    assert record.total_seconds == 2.0
    assert record.response.streamed
    assert record.response.first_token_seconds == 1.0
    assert record.response.body_bytes == 27
    assert sum(record.response.gaps.counts) == 2
    assert record.response.gaps.seconds == 1.0


@pytest.mark.parametrize(
    ("body", "headers", "size"),
    [
        (b"1234567", {"content-length": "99"}, 7),
        (None, {"content-length": "99"}, 99),
        (None, {"content-length": "lots"}, None),
        (None, {}, None),
        (b"", {}, 0),
    ],
    ids=["seen", "told", "no number", "unknown", "none"],
)
async def test_the_size_of_a_request_is_its_body_s_or_what_its_headers_say(bench, body, headers, size):
    exchange = bench.exchange()
    await exchange.decide(replace(ready(headers), body=body))
    await exchange.close(Termination.ENDED)
    assert bench.records[0].request_bytes == size


async def test_a_stream_that_starts_with_a_response_is_reported_as_such(bench):
    exchange = bench.exchange()
    await exchange.observe(started(400))
    await exchange.close(Termination.ENDED)
    (record,) = bench.records
    assert (record.outcome, record.response_status, record.findings) == (Outcome.RESPONSE_ONLY, 400, ())


async def test_a_client_that_leaves_while_a_pick_is_made_leaves_no_booking(bench):
    router = FakeWorkerRouter(B.dynamo_instance_id)
    router.gate = asyncio.Event()
    dynamo = DynamoStrategy("dynamo", router)
    exchange = bench.exchange(strategies={"dynamo": dynamo}, default_strategy="dynamo")
    deciding = asyncio.ensure_future(exchange.decide(ready(record=encode(RECORD))))
    await asyncio.sleep(0.01)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    await exchange.close(Termination.CANCELLED)
    assert bench.records[0].outcome is Outcome.UNDECIDED
    router.gate.set()
    await dynamo.close(1)
    assert (len(router.freed), router.booked) == (1, {})


async def test_fallbacks_are_part_of_the_report(bench):
    dynamo = DynamoStrategy("dynamo", FakeWorkerRouter(7))
    chain = FallbackStrategy([Step(dynamo, 1.0), Step(RoundRobin("round-robin"))], lambda fallback: None)
    exchange = bench.exchange(strategies={"dynamo": chain}, default_strategy="dynamo")
    await exchange.decide(ready(record=encode(RECORD)))
    await exchange.close(Termination.ENDED)
    (record,) = bench.records
    assert record.strategy == "round-robin"
    assert [fallback.fault for fallback in record.fallbacks] == [StrategyFault.NOT_A_CANDIDATE]
