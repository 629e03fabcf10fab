"""Bookings after requests that end in every way there is: Dynamo itself holds none of them any more."""

import asyncio
import collections
import json
import random
import time

import pytest

from epp_adapter.routing.dynamo_runtime import DynamoOptions, DynamoRuntime
from loadtests.stack.chain import Chain, ChainOptions
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT
from tests.integration import metrics
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

REQUESTS = 5_000
AT_ONCE = 24
# Dynamo forgets a booking by itself after five minutes; this must be over long before.
EXPIRY_SECONDS = 300
SETTLE_SECONDS = 10.0
WORDS = ("the", "keeper", "of", "lighthouse", "wrote", "down", "name", "every", "ship", "that", "came", "by")


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    settings = {
        "strategies": {
            "dynamo": {
                "kind": "dynamo",
                "endpoint": ENDPOINT,
                "block_size": BLOCK_SIZE,
                "discovery": "file",
                "router": {"router_replica_sync": True},
            },
            "round-robin": {"kind": "round-robin"},
        },
    }
    return start_chain(ChainOptions(workers=3, epp_settings=settings))


@pytest.fixture
async def dynamos_books(chain, monkeypatch):
    """A router of our own in replica sync with the adapter's: what it counts is what Dynamo counts."""
    for name, value in chain._plane.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "5")
    monkeypatch.setenv("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "5")
    runtime = DynamoRuntime.connect(DynamoOptions("file", "tcp", "nats", connect_seconds=5))
    router = runtime.router(ENDPOINT, BLOCK_SIZE, {"router_replica_sync": True})

    async def active() -> int:
        return sum(load["active_requests"] for load in await router._router.get_potential_loads([1]))

    yield active
    runtime.shutdown()


def body(chain: Chain, rng: random.Random, **fields) -> bytes:
    text = " ".join(rng.choices(WORDS, k=rng.randrange(20, 400)))
    request = {"model": chain.options.model.name, "messages": [{"role": "user", "content": text}], **fields}
    return json.dumps(request).encode()


class Mix:
    """One request of each kind; `outcomes` counts what clients saw."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._url = f"{chain.url}/v1/chat/completions"
        self._rng = random.Random(7)
        self.outcomes = collections.Counter()

    async def send(self, number: int) -> None:
        kinds = (
            [self.whole] * 5
            + [self.streamed] * 5
            + [self.aborted] * 4
            + [self.timed_out] * 3
            + [self.refused] * 3
        )
        kind = kinds[number % len(kinds)]
        try:
            status = await kind()
        except (OSError, ValueError, IndexError, TimeoutError):  # the connection broke in the middle
            status = "broken"
        self.outcomes[kind.__name__, status] += 1

    async def whole(self):
        return (await exchange(self._url, body(self._chain, self._rng, max_tokens=3))).status

    async def streamed(self):
        request = body(self._chain, self._rng, max_tokens=12, stream=True)
        answer = await exchange(self._url, request)
        return answer.status if answer.status != 200 or b"[DONE]" in answer.body else "cut"

    async def aborted(self):
        """The client leaves in the middle of a long answer."""
        request = body(self._chain, self._rng, max_tokens=2000, stream=True)
        await exchange(self._url, request, leave_after_seconds=self._rng.uniform(0.01, 0.3))
        return "left"

    async def timed_out(self):
        """The client gives up before there can be an answer."""
        request = body(self._chain, self._rng, max_tokens=2000)
        await exchange(self._url, request, leave_after_seconds=self._rng.uniform(0, 0.01))
        return "left"

    async def refused(self):
        """The model server answers with an error."""
        return (await exchange(self._url, body(self._chain, self._rng, temperature="hot"))).status


@pytest.mark.slow
async def test_after_5000_mixed_requests_no_booking_is_left_in_dynamo(chain, dynamos_books):
    started = time.monotonic()
    mix = Mix(chain)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await dynamos_books())
            await asyncio.sleep(0.05)

    async def lose_a_front_end() -> None:
        """Answers that break off, and endpoints that refuse connections, belong to life as well."""
        for name in ("frontend-0", "frontend-1"):
            await asyncio.sleep(6)
            await asyncio.to_thread(chain.processes[name].kill)
            await asyncio.sleep(2)
            await asyncio.to_thread(chain.restart, name)

    numbers = iter(range(REQUESTS))

    async def client() -> None:
        for number in numbers:
            await mix.send(number)

    watching = asyncio.create_task(watch())
    losing = asyncio.create_task(lose_a_front_end())
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    await losing
    watching.cancel()
    assert sum(mix.outcomes.values()) == REQUESTS
    assert mix.outcomes["whole", 200] > REQUESTS * 0.2, mix.outcomes
    assert mix.outcomes["streamed", 200] > REQUESTS * 0.2, mix.outcomes
    assert mix.outcomes["refused", 400] > REQUESTS * 0.1, mix.outcomes
    assert most > AT_ONCE / 4, "the watch saw bookings"

    admin = chain.admin_urls["epp-adapter"]
    assert await metrics.until(admin, 0, "epp_adapter_bookings_active", seconds=SETTLE_SECONDS) == 0
    async with asyncio.timeout(SETTLE_SECONDS):
        while await dynamos_books():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.05)
    assert time.monotonic() - started < EXPIRY_SECONDS
    picked = metrics.total(admin, "epp_adapter_requests_total", outcome="routed", strategy="dynamo")
    # Booked and given back at once: while a front end is gone it has no load, so that Dynamo picks it for
    # nearly all. Its restart takes seconds, which are a third of the run on a fast machine.
    unusable = metrics.total(
        admin, "epp_adapter_fallbacks_total", reason="not_a_candidate", strategy="dynamo"
    )
    # The others left before they were picked for.
    assert picked + unusable > REQUESTS * 0.75
    assert picked > unusable
