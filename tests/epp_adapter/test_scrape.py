"""The scraper against servers on loopback."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web

from epp_adapter import scrape
from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.scrape import ScrapeOptions, ScrapeOutcome, Scraper
from tests.epp_adapter.test_engine_metrics import SGLANG, VLLM


class ModelServer:
    """A metrics page, and how it is given."""

    def __init__(self):
        self.page = VLLM
        self.status = 200
        self.delay = 0.0
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.requests = []

    async def answer(self, request):
        self.asked += 1
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
            if self.status == 0:
                request.transport.abort()
            return web.Response(status=self.status or 200, body=self.page)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def served(server):
    app = web.Application()
    app.router.add_get("/metrics", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scraping(source, **options):
    scrapes = []
    settings = {"interval_seconds": 0.01, "timeout_seconds": 0.2, "staleness_seconds": 0.3} | options
    async with aiohttp.ClientSession() as session:
        scraper = Scraper(source, session, ScrapeOptions(**settings), time.monotonic, scrapes.append)
        running = asyncio.create_task(scraper.run())
        try:
            yield scraper, scrapes
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def reading(scraper, address):
    (load,) = scraper.loads([address])
    return load


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)


@pytest.fixture
def server():
    return ModelServer()


async def test_a_reading_is_kept_and_renewed(server):
    async with served(server) as address, scraping(FixedEndpoints(Endpoint(address))) as (scraper, _):
        assert reading(scraper, address) is None
        await until(lambda: reading(scraper, address))
        assert reading(scraper, address).waiting == 2
        server.page = VLLM.replace(b"} 2.0", b"} 9.0")
        await until(lambda: reading(scraper, address).waiting == 9)
        assert scraper.fresh() == 1
        assert reading(scraper, "10.0.0.1:1") is None
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((500, VLLM, 0), ScrapeOutcome.BAD_STATUS),
        ((302, VLLM, 0), ScrapeOutcome.BAD_STATUS),
        ((200, b"nothing", 0), ScrapeOutcome.NO_METRICS),
        ((200, VLLM * 20, 0), ScrapeOutcome.TOO_LARGE),
        ((200, VLLM, 1), ScrapeOutcome.TIMEOUT),
        ((0, VLLM, 0), ScrapeOutcome.BROKEN),
    ],
)
async def test_a_failed_scrape_leaves_the_last_reading_until_it_is_stale(
    server, answer, outcome, monkeypatch
):
    status, page, delay = answer
    monkeypatch.setattr(scrape, "MAX_PAGE_BYTES", len(VLLM) * 10)
    async with served(server) as address, scraping(FixedEndpoints(Endpoint(address))) as (scraper, scrapes):
        await until(lambda: reading(scraper, address))
        server.status, server.page, server.delay = status, page, delay
        await until(lambda: scrapes[-1].outcome is outcome)
        if not delay:
            assert reading(scraper, address) is not None
        await until(lambda: reading(scraper, address) is None)
        assert scraper.fresh() == 0


async def test_an_endpoint_nobody_listens_on_is_asked_less_and_less_often(server):
    async with served(server) as address:
        pass
    async with scraping(FixedEndpoints(Endpoint(address))) as (_, scrapes):
        await asyncio.sleep(0.5)
    assert {each.outcome for each in scrapes} == {ScrapeOutcome.UNREACHABLE}
    assert 3 <= len(scrapes) < 15


async def test_who_leaves_is_forgotten_and_who_comes_is_asked(server):
    source = FixedEndpoints()
    async with served(server) as address, scraping(source) as (scraper, _):
        await asyncio.sleep(0.03)
        assert server.asked == 0
        source.replace(Endpoint(address))
        await until(lambda: reading(scraper, address))
        source.replace()
        await until(lambda: reading(scraper, address) is None)
        asked = server.asked
        await asyncio.sleep(0.05)
        assert server.asked <= asked + 1


async def test_a_label_names_the_engine(server):
    server.page = SGLANG
    options = {"engine_label": "engine"}
    async with served(server) as address:
        plain, labelled = Endpoint(address), Endpoint(address, labels={"engine": "sglang"})
        async with scraping(FixedEndpoints(plain), **options) as (_, scrapes):
            await until(lambda: scrapes)
            assert scrapes[0].outcome is ScrapeOutcome.NO_METRICS
        async with scraping(FixedEndpoints(labelled), **options) as (scraper, _):
            await until(lambda: reading(scraper, address))
            assert reading(scraper, address).block_size == 64


async def test_a_port_of_its_own_may_have_the_metrics(server):
    async with served(server) as address:
        port = int(address.rpartition(":")[2])
        elsewhere = Endpoint("127.0.0.1:1")
        async with scraping(FixedEndpoints(elsewhere), port=port) as (scraper, _):
            await until(lambda: reading(scraper, "127.0.0.1:1"))


async def test_no_more_are_asked_at_once_than_may_be(server):
    server.delay = 0.02
    async with served(server) as address:
        port = int(address.rpartition(":")[2])
        # Twenty endpoints, whose metrics one server has.
        many = [Endpoint(f"127.0.0.1:{number}") for number in range(1, 21)]
        async with scraping(FixedEndpoints(*many), port=port, concurrency=3) as (scraper, _):
            await until(lambda: scraper.fresh() == 20)
    assert server.most_at_once == 3
