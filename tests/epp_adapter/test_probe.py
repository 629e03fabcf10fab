"""Probes over real HTTP on loopback, and the prober with a fake one."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from aiohttp import web

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.passive_health import Failure, HealthOptions, PassiveHealth
from epp_adapter.probe import FakeProbe, HttpProbe, ProbeOptions, Prober

A, B = (Endpoint(f"10.0.0.{number}:8000") for number in (1, 2))
WORKER = 2**63 + 5


@asynccontextmanager
async def serving(answer):
    """A server with one handler for every path; its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def listening():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def stopped():
    """A port where connections are made and nobody takes them, as those of a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@asynccontextmanager
async def resetting():
    def reset(_, writer):
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def is_alive(address, worker=None, **options):
    async with aiohttp.ClientSession() as session:
        return await HttpProbe(session, ProbeOptions(**options)).alive(Endpoint(address, worker))


def answering(status, body=b""):
    async def answer(request):
        assert request.path == "/health"
        return web.Response(status=status, body=body)

    return answer


@pytest.mark.parametrize(
    ("status", "alive"), [(200, True), (404, True), (301, True), (500, False), (503, False)]
)
async def test_alive_is_whoever_answers_below_500(status, alive):
    async with serving(answering(status)) as address:
        assert await is_alive(address) is alive


async def test_nobody_there_is_not_alive():
    async with listening() as port:
        pass
    assert not await is_alive(f"127.0.0.1:{port}")


async def test_a_connection_that_breaks_off_is_not_alive():
    async with listening() as port:
        assert not await is_alive(f"127.0.0.1:{port}")


async def test_who_does_not_answer_in_time_is_not_alive():
    async def never(request):
        await asyncio.sleep(5)

    async with serving(never) as address:
        assert not await is_alive(address, timeout_seconds=0.05)


def instances(*listed):
    return orjson.dumps({"status": "healthy", "instances": listed})


def instance(number, transport):
    return {"instance_id": number, "endpoint": "generate", "transport": transport}


class TestDynamoWorkers:
    async def asked(self, body, **options):
        async with serving(answering(200, body)) as address:
            return await is_alive(address, WORKER, **options)

    async def test_alive_is_a_worker_that_is_listed_and_listens(self):
        async with listening() as port:
            tcp = {"tcp": f"127.0.0.1:{port}/a0/dyn/backend/generate"}
            assert await self.asked(instances(instance(1, {}), instance(WORKER, tcp)))

    async def test_a_worker_that_is_listed_and_does_not_listen_is_dead(self):
        async with listening() as port:
            pass
        assert not await self.asked(instances(instance(WORKER, {"tcp": f"127.0.0.1:{port}/a0"})))

    async def test_a_worker_that_does_not_hang_up_as_another_does_hangs(self):
        async with listening() as lively, stopped() as port:
            other = instance(1, {"tcp": f"127.0.0.1:{lively}/a0"})
            ours = instance(WORKER, {"tcp": f"127.0.0.1:{port}/a0"})
            assert not await self.asked(instances(other, ours), timeout_seconds=0.1)
            assert not await self.asked(instances(ours, other, other), timeout_seconds=0.1)

    async def test_a_worker_that_does_not_hang_up_is_alive_where_no_other_does(self):
        async with listening() as gone:
            pass
        async with stopped() as port, stopped() as like_it:
            ours = instance(WORKER, {"tcp": f"127.0.0.1:{port}/a0"})
            others = [
                instance(1, {"tcp": f"127.0.0.1:{like_it}/a0"}),
                instance(2, {"tcp": f"127.0.0.1:{gone}/a0"}),
                instance(3, {"nats": "subject"}),
                instance(4, {"tcp": f"127.0.0.1:{port}/b0"}),
            ]
            assert await self.asked(instances(ours), timeout_seconds=0.1)
            assert await self.asked(instances(ours, *others), timeout_seconds=0.1)

    async def test_a_worker_that_breaks_the_connection_off_is_alive(self):
        async with listening() as lively, resetting() as port:
            other = instance(1, {"tcp": f"127.0.0.1:{lively}/a0"})
            assert await self.asked(instances(other, instance(WORKER, {"tcp": f"127.0.0.1:{port}/a0"})))

    async def test_a_worker_that_is_no_longer_listed_when_it_hangs_up_is_dead(self):
        """It hung, lost its lease and went on while it was asked."""
        listed = True

        def goes_on(_, writer):
            nonlocal listed
            listed = False
            writer.close()

        async with await asyncio.start_server(goes_on, "127.0.0.1", 0) as worker:
            port = worker.sockets[0].getsockname()[1]
            ours = instance(WORKER, {"tcp": f"127.0.0.1:{port}/a0"})

            async def answer(_):
                return web.Response(body=instances(ours) if listed else instances())

            async with serving(answer) as address:
                assert not await is_alive(address, WORKER)
                assert not listed, "it was asked"

    async def test_a_worker_that_is_not_listed_is_dead(self):
        assert not await self.asked(instances(instance(1, {})))

    @pytest.mark.parametrize(
        "transport", [{"nats": "subject"}, {"tcp": 7}, {"tcp": "nowhere"}, {"tcp": "h:99999/x"}, "tcp", None]
    )
    async def test_a_listed_worker_whose_address_is_not_told_is_alive(self, transport):
        assert await self.asked(instances(instance(WORKER, transport)))

    @pytest.mark.parametrize("body", [b"ok", b"[]", b"{}", b'{"instances": {}}', b'{"instances": [7]}'])
    async def test_a_server_that_lists_no_workers_is_alive_by_its_status(self, body):
        listed_but_not_ours = body == b'{"instances": [7]}'
        assert await self.asked(body) is not listed_but_not_ours


class TestProber:
    @pytest.fixture
    def health(self):
        health = PassiveHealth(HealthOptions(base_seconds=1.0))
        for endpoint in (A, B):
            health.failed(endpoint, Failure.UNAVAILABLE, 0.0)
        return health

    async def test_it_asks_who_is_due_and_tells(self, health):
        now = 0.5
        probe = FakeProbe({A.address: True, B.address: False})
        prober = Prober(health, FixedEndpoints(A, B), probe, lambda: now)
        prober.tick()
        assert probe.asked == []
        now = 1.0
        prober.tick()
        prober.tick()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(probe.asked) == [A.address, B.address]
        assert health.usable((A, B)) == (A,)

    async def test_one_that_is_doubted_is_asked_while_it_serves(self):
        health = PassiveHealth(HealthOptions())
        probe = FakeProbe({A.address: False})
        prober = Prober(health, FixedEndpoints(A, B), probe, lambda: 0.0)
        for endpoint in (A, B):
            health.doubted(endpoint, 0.0)
        prober.tick()
        assert health.usable((A, B)) == (A, B)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(probe.asked) == [A.address, B.address]
        assert health.usable((A, B)) == (B,)
        assert health.down == 1

    async def test_it_asks_no_more_at_once_than_it_may(self, health):
        asked = asyncio.Event()

        class Slow(FakeProbe):
            async def alive(self, endpoint):
                self.asked.append(endpoint.address)
                await asked.wait()
                return True

        probe = Slow()
        prober = Prober(health, FixedEndpoints(A, B), probe, lambda: 9.0, concurrency=1)
        running = asyncio.create_task(prober.run(poll_seconds=0.001))
        await asyncio.sleep(0.02)
        assert len(probe.asked) == 1
        asked.set()
        await asyncio.sleep(0.02)
        assert len(probe.asked) == 2
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_it_forgets_who_has_left_the_pool(self, health):
        prober = Prober(health, FixedEndpoints(A), FakeProbe(), lambda: 0.0)
        prober.tick()
        assert health.set_aside == 1
