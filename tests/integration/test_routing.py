"""Who serves a request, on the real parts: strategies, their fallbacks, and what they keep in their books."""

import asyncio
import json
import uuid

import pytest

from loadtests.stack.chain import Chain, ChainOptions
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT
from tests.integration import metrics
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

DYNAMO = {
    "kind": "dynamo",
    "endpoint": ENDPOINT,
    "block_size": BLOCK_SIZE,
    "discovery": "file",
    # So that the tests' own router hears of every booking.
    "router": {"router_replica_sync": True},
}
INTERNAL = {
    "kind": "internal",
    "block_size": BLOCK_SIZE,
    "kv_events": {"kind": "dynamo", "endpoint": ENDPOINT},
}
SETTINGS = {
    "strategies": {"dynamo": DYNAMO, "internal": INTERNAL, "round-robin": {"kind": "round-robin"}},
    "default_strategy": "dynamo",
    "fallback": ["internal", "round-robin"],
}
STORY = "The keeper of the lighthouse wrote down the name of every ship that came by in the night. " * 12


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(ChainOptions(workers=3, epp_settings=SETTINGS))


def chat(chain: Chain, *messages: str, **fields) -> bytes:
    roles = ("user", "assistant")
    history = [{"role": roles[index % 2], "content": text} for index, text in enumerate(messages)]
    body = {"model": chain.options.model.name, "messages": history, "max_tokens": 4, **fields}
    return json.dumps(body).encode()


async def post(chain: Chain, body: bytes, **headers: str):
    """The answer, and what Envoy's access log says of the exchange."""
    request_id = str(uuid.uuid4())
    sent = {"x-request-id": request_id, **{name.replace("_", "-"): text for name, text in headers.items()}}
    answer = await exchange(f"{chain.url}/v1/chat/completions", body, headers=sent)
    entries = await asyncio.to_thread(chain.access_log.wait_for, [request_id])
    return answer, entries[request_id]


def routed_by(chain: Chain, strategy: str) -> float:
    admin = chain.admin_urls["epp-adapter"]
    return metrics.total(admin, "epp_adapter_requests_total", outcome="routed", strategy=strategy)


async def conversation(chain: Chain, strategy: str) -> tuple[bool, int]:
    """Two turns about something new: whether both went to one worker, and the second one's cached tokens."""
    opening = f"{uuid.uuid4()} {STORY}"
    first, entry = await post(chain, chat(chain, opening), x_routing_strategy=strategy)
    assert first.status == 200, first.body
    reply = first.json()["choices"][0]["message"]["content"]
    second, again = await post(chain, chat(chain, opening, reply, "Go on."), x_routing_strategy=strategy)
    assert second.status == 200, second.body
    cached = second.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return again.upstream == entry.upstream, cached


@pytest.mark.parametrize("strategy", ["dynamo", "internal"])
async def test_later_turns_go_to_the_worker_that_holds_the_earlier_ones(chain, strategy):
    results = [await conversation(chain, strategy) for _ in range(8)]
    assert all(same for same, _ in results)
    assert all(cached > 100 for _, cached in results)


async def test_round_robin_knows_nothing_of_prefixes(chain):
    """What the test above would see if it measured nothing."""
    results = [await conversation(chain, "round-robin") for _ in range(8)]
    assert not all(same for same, _ in results)


async def test_a_header_chooses_the_strategy_of_one_request(chain):
    for strategy in ("internal", "dynamo", "round-robin", "internal"):
        before = routed_by(chain, strategy)
        answer, _ = await post(chain, chat(chain, "Hello."), x_routing_strategy=strategy)
        assert answer.status == 200
        expected = await metrics.until(
            chain.admin_urls["epp-adapter"],
            before + 1,
            "epp_adapter_requests_total",
            outcome="routed",
            strategy=strategy,
        )
        assert expected == before + 1


async def test_a_request_that_cannot_be_tokenized_falls_back_and_is_served(chain):
    admin = chain.admin_urls["epp-adapter"]
    labels = {"strategy": "dynamo", "reason": "no_token_ids"}
    before = metrics.total(admin, "epp_adapter_fallbacks_total", **labels)
    answer, entry = await post(chain, b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}')
    assert (answer.status, entry.details) == (404, "via_upstream")
    assert metrics.total(admin, "epp_adapter_fallbacks_total", **labels) == before + 1


class TestNats:
    async def test_stopping_and_starting_nats_under_load_fails_no_request_and_prefixes_are_found_again(
        self, chain
    ):
        load = asyncio.create_task(self.load(chain, seconds=9))
        await asyncio.sleep(1)
        nats = chain.processes["nats"]
        await asyncio.to_thread(nats.stop)
        await asyncio.sleep(3)
        assert not nats.running
        await asyncio.to_thread(chain.restart, "nats")
        statuses = await load
        assert len(statuses) > 50
        assert set(statuses) == {200}
        for strategy in ("dynamo", "internal"):
            await self.until_prefixes_are_found(chain, strategy)

    @staticmethod
    async def load(chain: Chain, seconds: float) -> list[int]:
        """The statuses of requests on four connections; half of them take up an earlier prompt again."""
        end = asyncio.get_running_loop().time() + seconds
        statuses = []

        async def client(number: int) -> None:
            turn = 0
            while asyncio.get_running_loop().time() < end:
                turn += 1
                body = chat(chain, f"client {number}, story {turn // 2}: {STORY}")
                strategy = {"x-routing-strategy": ("dynamo", "internal")[number % 2]}
                answer = await exchange(f"{chain.url}/v1/chat/completions", body, headers=strategy)
                statuses.append(answer.status)

        await asyncio.gather(*(client(number) for number in range(4)))
        return statuses

    @staticmethod
    async def until_prefixes_are_found(chain: Chain, strategy: str) -> None:
        """Reconnecting takes the routers some seconds; then every conversation stays on its worker."""
        async with asyncio.timeout(30):
            while True:
                results = [await conversation(chain, strategy) for _ in range(4)]
                if all(same and cached for same, cached in results):
                    return


async def test_a_model_may_have_a_strategy_of_its_own(start_chain):
    plain = ChainOptions()
    settings = {
        "strategies": {"round-robin": {"kind": "round-robin"}, "other": {"kind": "round-robin"}},
        "default_strategy": "round-robin",
        "fallback": [],
        "models": {plain.model.name: {"strategy": "other"}},
    }
    chain = start_chain(ChainOptions(workers=1, epp_settings=settings))
    await post(chain, chat(chain, "Whose am I?"))
    await post(chain, b'{"model": "nobody"}')
    admin = chain.admin_urls["epp-adapter"]
    for strategy in ("other", "round-robin"):
        labels = {"outcome": "routed", "strategy": strategy}
        assert await metrics.until(admin, 1, "epp_adapter_requests_total", **labels) == 1
