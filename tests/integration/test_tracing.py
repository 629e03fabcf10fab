"""Traces of real requests: the spans of both services below the client's own."""

import json
from collections.abc import Iterator

import pytest

from loadtests.stack.chain import Chain, ChainOptions, Upstream
from loadtests.stack.trace_collector import Collected, serve_collector
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def traced(start_chain) -> Iterator[tuple[Chain, Collected]]:
    with serve_collector() as (url, collected):
        settings = {"tracing": {"endpoint": url, "sample_ratio": 0.0}}
        options = ChainOptions(
            upstream=Upstream.ECHO, workers=1, tokenext_settings=settings, epp_settings=settings
        )
        yield start_chain(options), collected


async def chat(chain: Chain, **headers: str):
    body = {"model": chain.options.model.name, "messages": [{"role": "user", "content": "Who goes there?"}]}
    return await exchange(f"{chain.url}/v1/chat/completions", json.dumps(body).encode(), headers=headers)


async def test_a_sampled_request_leaves_spans_of_both_services_below_the_clients(traced):
    chain, collected = traced
    answer = await chat(chain, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert answer.status == 200
    spans = collected.wait_for(lambda found: {"tokenize", "route"} <= {each.name for each in found})
    by_name = {each.name: each for each in spans}
    tokenize, route = by_name["tokenize"], by_name["route"]
    assert {(each.trace, each.parent) for each in (tokenize, route)} == {(TRACE, PARENT)}
    assert (tokenize.service, route.service) == ("tokenext", "epp-adapter")
    assert {each.name for each in spans if each.parent == tokenize.span} >= {
        "parse",
        "render",
        "encode",
        "record",
    }
    assert [each.name for each in spans if each.parent == route.span] == ["pick"]
    assert (
        tokenize.attributes["gen_ai.usage.input_tokens"] == route.attributes["gen_ai.usage.input_tokens"] > 0
    )
    assert route.attributes["http.response.status_code"] == 200
    assert tokenize.began < tokenize.ended <= route.ended


async def test_a_request_that_nobody_samples_leaves_none(traced):
    chain, collected = traced
    before = collected.count
    assert (await chat(chain)).status == 200
    assert (await chat(chain, traceparent=f"00-{TRACE}-{PARENT}-00")).status == 200
    # What came after it is there, so it would be, too.
    assert (await chat(chain, traceparent=f"00-{'1' * 32}-{PARENT}-01")).status == 200
    collected.wait_for(lambda found: {"tokenize", "route"} <= {s.name for s in found if s.trace == "1" * 32})
    later = [each for each in collected.spans()[before:] if each.trace != "1" * 32]
    assert later == []
