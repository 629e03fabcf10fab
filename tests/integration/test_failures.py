"""What clients see when a part of the chain dies."""

import asyncio
import json

import pytest

from loadtests.stack.chain import Chain, ChainOptions
from tests.integration import metrics
from tests.integration.load import Load

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def chain(start_chain) -> Chain:
    return start_chain(ChainOptions(workers=2))


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
