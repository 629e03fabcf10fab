"""What clients see when a part of the chain dies."""

import asyncio
import json
import time

import aiohttp
import pytest

from loadtests.stack.chain import Chain, ChainOptions
from tests.integration import metrics

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(ChainOptions(workers=2))


class Load:
    """Requests one after another on several connections until told to stop; every status is kept."""

    def __init__(self, chain: Chain, connections: int = 4) -> None:
        self._url = f"{chain.url}/v1/chat/completions"
        self._model = chain.options.model.name
        self._stop = asyncio.Event()
        self._answered = asyncio.Condition()
        self._connections = connections
        self.statuses: list[int] = []
        self.slowest = 0.0

    async def __aenter__(self):
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(self._connections)]
        await self.grow(20)
        return self

    async def __aexit__(self, *_):
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def grow(self, count: int) -> None:
        """Wait for that many more answers."""
        wanted = len(self.statuses) + count
        async with asyncio.timeout(20), self._answered:
            await self._answered.wait_for(lambda: len(self.statuses) >= wanted)

    async def _run(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            body = {
                "model": self._model,
                "messages": [{"role": "user", "content": f"{number} {turn} " + "word " * 50}],
                "max_tokens": 2,
            }
            started = time.monotonic()
            try:
                async with self._session.post(self._url, json=body) as response:
                    await response.read()
                    status = response.status
            except (aiohttp.ClientError, TimeoutError):
                status = 0
            async with self._answered:
                self.statuses.append(status)
                self._answered.notify_all()
            self.slowest = max(self.slowest, time.monotonic() - started)


async def test_killing_tokenext_under_load_loses_no_request(chain):
    async with Load(chain) as load:
        await asyncio.to_thread(chain.processes["tokenext-0"].kill)
        await load.grow(100)
        await asyncio.to_thread(chain.restart, "tokenext-0")
        await load.grow(50)
    assert set(load.statuses) == {200}


async def test_tokenization_resumes_once_tokenext_is_back(chain):
    admin = chain.admin_urls["epp-adapter"]
    used = metrics.total(admin, "epp_adapter_records_total", outcome="used")
    async with Load(chain) as load:
        await load.grow(20)
    assert metrics.total(admin, "epp_adapter_records_total", outcome="used") > used


async def test_killing_the_epp_gives_503_at_once_and_service_returns_with_it(chain):
    async with Load(chain) as load:
        await asyncio.to_thread(chain.processes["epp-adapter"].kill)
        await load.grow(30)
        killed = load.statuses[-10:]
        assert load.slowest < 2
        await asyncio.to_thread(chain.restart, "epp-adapter")
        await load.grow(20)
        # Envoy reconnects with a backoff of up to a second.
        await asyncio.sleep(2)
        await load.grow(20)
        back = load.statuses[-5:]
    assert set(killed) == {503}
    assert set(load.statuses) == {200, 503}
    assert set(back) == {200}


async def test_a_malformed_endpoints_file_keeps_the_last_good_one_and_is_counted(chain):
    admin = chain.admin_urls["epp-adapter"]
    path = chain.logs / "endpoints.yaml"
    good = path.read_text()
    try:
        path.write_text(json.dumps({"endpoints": [{"address": "localhost:1"}]}))
        assert await metrics.until(admin, 1, "epp_adapter_reloads_total", outcome="refused") == 1
        async with Load(chain, connections=1) as load:
            pass
        assert set(load.statuses) == {200}
    finally:
        path.write_text(good)
