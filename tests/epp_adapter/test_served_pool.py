"""`epp-adapter serve` that follows an InferencePool of an API server on loopback, and scrapes its pods."""

import asyncio
import sys
from contextlib import asynccontextmanager

import grpc.aio
import pytest
import yaml
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.events import BodyMode
from tests.epp_adapter.dynamo_stack import process
from tests.epp_adapter.fake_kube import fake_kube
from tests.epp_adapter.kube_objects import (
    OBJECTIVES,
    PODS,
    POOLS,
    REWRITES,
    objective,
    pod,
    pool,
    rewrite,
    rule,
)
from tests.epp_adapter.test_engine_metrics import VLLM
from tests.epp_adapter.test_main import Served, routed
from tests.extproc.envoy_messages import header_changes, request_body, request_headers, with_modes

pytestmark = pytest.mark.integration

SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def served(folder, api_server, **changes):
    settings = {
        "listen": f"unix:{folder}/epp.sock",
        "admin": "127.0.0.1:0",
        "endpoints": {"pool": {"name": "pool", "namespace": "ns", "api_server": api_server}},
        "strategies": {"round-robin": {"kind": "round-robin"}},
        "default_strategy": "round-robin",
        "drain_seconds": 1,
        **changes,
    }
    config = folder / "epp.yaml"
    config.write_text(yaml.safe_dump(settings))
    log = folder / "epp.log"
    with process([sys.executable, "-m", "epp_adapter", "serve", "--config", str(config)], log, {}) as running:
        async with grpc.aio.insecure_channel(settings["listen"]) as channel:
            yield Served(running, channel, log)


async def status(epp):
    try:
        check = health_pb2_grpc.HealthStub(epp.channel).Check
        return (await check(health_pb2.HealthCheckRequest(service="readiness"))).status
    except grpc.aio.AioRpcError:
        return None


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.05)


async def is_serving(epp):
    return await status(epp) == SERVING


async def destination(epp, body_mode=BodyMode.NONE):
    message = with_modes(request_headers({":method": "POST", ":path": "/v1/completions"}), body_mode)
    return (await routed(epp.stream(), message))[0]


@asynccontextmanager
async def model_server(page=VLLM):
    """A metrics page on 127.0.0.1; its port."""
    app = web.Application()

    async def answer(request):
        return web.Response(body=page)

    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_it_is_ready_once_the_pool_is_known_and_follows_it(tmp_path):
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(pool("another"))
        await kube[PODS].put(pod("a", "127.0.0.1"))
        async with served(tmp_path, url) as epp:
            await followed(kube, epp)


async def followed(kube, epp):
    async def alive():
        return await status(epp) is not None

    async def only_b():
        return {await destination(epp) for _ in range(3)} == {"127.0.0.2:8001"}

    await until(alive)
    await asyncio.sleep(0.5)
    assert await status(epp) != SERVING, "the pool is not there yet"
    await kube[POOLS].put(pool(ports=(8001,)))
    await until(lambda: is_serving(epp))
    assert await destination(epp) == "127.0.0.1:8001"
    await kube[PODS].put(pod("b", "127.0.0.2"))
    await kube[PODS].put(pod("a", "127.0.0.1", deleting=True))
    await until(only_b)
    assert await epp.metric("epp_adapter_ready_endpoints") == 1
    sample = 'epp_adapter_pool_watches_total{event="listed",resource="pods"}'
    assert await epp.metric(sample) >= 1


async def test_pods_are_scraped(tmp_path):
    async with fake_kube() as (kube, url), model_server() as port:
        await kube[POOLS].put(pool(ports=(port,)))
        await kube[PODS].put(pod("a", "127.0.0.1"))
        async with served(tmp_path, url, scrape={"interval_ms": 50}) as epp:
            await until(lambda: is_serving(epp))

            async def fresh():
                return await epp.metric("epp_adapter_fresh_loads") == 1

            await until(fresh)
            assert await epp.metric('epp_adapter_scrapes_total{outcome="read"}') >= 1


async def test_a_request_that_may_be_dropped_is_429_where_the_pool_is_full(tmp_path):
    full = VLLM.replace(b"} 2.0", b"} 99.0")
    async with fake_kube() as (kube, url), model_server(full) as port:
        await kube[POOLS].put(pool(ports=(port,)))
        await kube[PODS].put(pod("a", "127.0.0.1"))
        await kube[OBJECTIVES].put(objective("batch", -1))
        strategies = {"internal": {"kind": "internal"}}
        async with served(
            tmp_path, url, scrape={}, strategies=strategies, default_strategy="internal"
        ) as epp:
            await until(lambda: is_serving(epp))

            async def fresh():
                return await epp.metric("epp_adapter_fresh_loads") == 1

            await until(fresh)
            assert await destination(epp) == f"127.0.0.1:{port}"
            call = epp.stream()
            headers = {":method": "POST", "x-gateway-inference-objective": "batch"}
            await call.write(with_modes(request_headers(headers), BodyMode.NONE))
            reply = await call.read()
            assert reply.immediate_response.status.code == 429
            assert header_changes(reply).set["x-llm-d-request-dropped-reason"] == "rejected-saturated"


async def test_a_mode_without_bodies_cannot_serve_the_pools_rewrites(tmp_path):
    async with fake_kube() as (kube, url):
        await kube[POOLS].put(pool())
        await kube[PODS].put(pod("a", "127.0.0.1"))
        await kube[OBJECTIVES].put(objective("batch", -1))
        await kube[REWRITES].put(rewrite("r", rule("food", to="lora-7")))
        async with served(tmp_path, url) as epp:
            await until(lambda: is_serving(epp))
            call = epp.stream()
            await call.write(with_modes(request_headers({":method": "POST"}), BodyMode.NONE))
            assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "processing_mode.request_body_mode" in await call.details()
            call = epp.stream()
            modes = {"response": BodyMode.STREAMED}
            await call.write(with_modes(request_headers({":method": "POST"}), BodyMode.BUFFERED, **modes))
            await call.read()
            await call.write(request_body(b'{"model": "food"}', end=True))
            reply = await call.read()
            assert reply.request_body.response.body_mutation.body == b'{"model":"lora-7"}'


async def test_outside_of_a_cluster_it_says_so_in_one_line(tmp_path):
    async with served(tmp_path, "", endpoints={"pool": {"name": "pool"}}) as epp:
        assert await asyncio.to_thread(epp.running.wait, 20) == 1
        assert "epp-adapter: endpoints.pool: no configuration of a Kubernetes cluster" in epp.log.read_text()
        assert "Traceback" not in epp.log.read_text()
