"""Token ids reach the picker without forwarded metadata: in the body, or by a call to tokenext."""

import asyncio
import json

import pytest

from loadtests.stack import services
from loadtests.stack.chain import Chain, ChainOptions, Part
from loadtests.stack.envoy_config import BodyMode, UnixAddress
from loadtests.stack.probes import free_ports
from loadtests.stack.processes import Supervisor
from tests.integration import metrics
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

PROMPT = "Tell me about the history of the lighthouse on the northern cape and of its keepers. " * 12


async def turn(chain: Chain, text: str) -> tuple[int, int]:
    """Status and cached tokens of one chat."""
    body = {
        "model": chain.options.model.name,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 2,
    }
    answer = await exchange(f"{chain.url}/v1/chat/completions", json.dumps(body).encode())
    usage = answer.json().get("usage") or {}
    return answer.status, (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


async def found(chain: Chain, source: str, outcome: str, expected: float) -> float:
    admin = chain.admin_urls["epp-adapter"]
    return await metrics.until(admin, expected, "epp_adapter_records_total", source=source, outcome=outcome)


async def picked_by(chain: Chain, strategy: str) -> float:
    return metrics.total(chain.admin_urls["epp-adapter"], "epp_adapter_requests_total", strategy=strategy)


@pytest.fixture(scope="module")
def body_chain(start_chain) -> Chain:
    """The picker knows no forwarded record; tokenext hands the ids to the engine in the body."""
    settings = {"metadata_namespace": "somewhere.else", "tokenization": {"trust_body_ids": True}}
    return start_chain(ChainOptions(workers=2, epp_body=BodyMode.FULL_DUPLEX_STREAMED, epp_settings=settings))


async def test_ids_that_tokenext_put_into_the_body_are_routed_by(body_chain):
    for number in range(4):
        text = f"{number}: {PROMPT}"
        assert (await turn(body_chain, text))[0] == 200
        status, cached = await turn(body_chain, f"{text} Go on.")
        assert status == 200
        assert cached > 100
    assert await found(body_chain, "body", "used", 8) == 8
    assert await found(body_chain, "metadata", "absent", 8) == 8
    assert await picked_by(body_chain, "dynamo") == 8


@pytest.fixture(scope="module")
def called(tmp_path_factory):
    """A tokenext that stands in no chain, and its address."""
    folder = tmp_path_factory.mktemp("tokenext")
    address = UnixAddress(str(folder / "tokenext.sock"))
    options = ChainOptions()
    with Supervisor(folder) as supervisor:
        (admin,) = free_ports(1)
        process = supervisor.start(
            services.tokenext(folder, "tokenext", options.model, address, admin, handoff="none", settings={})
        )
        supervisor.wait_ready([process], deadline_seconds=60)
        yield process, str(address), f"http://127.0.0.1:{admin}"


@pytest.fixture(scope="module")
def calling_chain(start_chain, called) -> Chain:
    """No tokenext in front of the picker: it calls one."""
    return start_chain(
        ChainOptions(
            workers=2,
            tokenext=Part.ABSENT,
            epp_body=BodyMode.FULL_DUPLEX_STREAMED,
            epp_settings={"tokenization": {"address": called[1], "deadline_ms": 1000}},
        )
    )


async def test_a_picker_without_tokenext_in_front_calls_it_and_routes_by_prefix(calling_chain, called):
    for number in range(4):
        text = f"{number}: {PROMPT}"
        assert (await turn(calling_chain, text))[0] == 200
        status, cached = await turn(calling_chain, f"{text} Go on.")
        assert status == 200
        assert cached > 100
    assert await found(calling_chain, "callout", "used", 8) == 8
    assert await picked_by(calling_chain, "dynamo") == 8
    tokenized = metrics.total(called[2], "tokenext_requests_total", outcome="tokenized")
    assert tokenized == 8, "tokenext counts calls as it counts requests"


async def test_while_tokenext_is_gone_requests_are_served_without_ids_and_it_is_called_again(
    calling_chain, called
):
    process = called[0]
    before = await picked_by(calling_chain, "dynamo")
    process.stop()
    for _ in range(3):
        assert (await turn(calling_chain, PROMPT))[0] == 200
    assert await found(calling_chain, "callout", "unavailable", 3) == 3
    assert await picked_by(calling_chain, "dynamo") == before
    process.start_again()
    async with asyncio.timeout(30):
        while await picked_by(calling_chain, "dynamo") == before:
            assert (await turn(calling_chain, PROMPT))[0] == 200
            await asyncio.sleep(0.1)
