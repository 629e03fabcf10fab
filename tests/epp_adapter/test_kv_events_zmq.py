"""vLLM's KV events over real ZMQ sockets on loopback, from a publisher made here."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
import zmq.asyncio
from zmq.constants import SocketType

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.kv_events import StreamOutcome
from epp_adapter.kv_events_zmq import VllmOptions, follow
from epp_adapter.routing.prefix_index import Applied, PrefixIndex, WorkerRank
from tests.epp_adapter.test_kv_events import SIZE, VllmServer, ids

SECONDS = 10.0
END = (-1).to_bytes(8, "big", signed=True)


class Seen(Counter):
    def __call__(self, outcome, number: int) -> None:
        self[outcome] += number


class Publisher:
    """vLLM's ZmqEventPublisher, as far as a subscriber can see it. `buffer` is what it replays."""

    def __init__(self, context, *, topic_in_replay: bool = True) -> None:
        self.events, self.replays = context.socket(SocketType.PUB), context.socket(SocketType.ROUTER)
        self.port = self.events.bind_to_random_port("tcp://127.0.0.1")
        self.replay_port = self.replays.bind_to_random_port("tcp://127.0.0.1")
        self.buffer: list[tuple[int, bytes]] = []
        self.sequence = 0
        self._topic = (b"",) if topic_in_replay else ()

    async def publish(self, payload: bytes, *, lost: bool = False, topic: bytes = b"") -> None:
        self.buffer.append((self.sequence, payload))
        if not lost:
            await self.events.send_multipart((topic, self.sequence.to_bytes(8, "big"), payload))
        self.sequence += 1

    async def answer_replays(self) -> None:
        while True:
            client, _, first = await self.replays.recv_multipart()
            for sequence, payload in self.buffer:
                if sequence >= int.from_bytes(first, "big"):
                    message = (client, b"", *self._topic, sequence.to_bytes(8, "big"), payload)
                    await self.replays.send_multipart(message)
            await self.replays.send_multipart((client, b"", *self._topic, END, b""))

    def close(self) -> None:
        self.events.close(linger=0)
        self.replays.close(linger=0)


@asynccontextmanager
async def running(*works):
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)


async def until(condition, what: str) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not in {SECONDS} s: {what}")


@pytest.fixture
def context():
    with zmq.asyncio.Context() as made:
        yield made


@pytest.fixture
def server():
    return VllmServer()


def one_block(server: VllmServer, number: int) -> bytes:
    return server.payload(server.stored(ids(1, seed=number), name=number + 1))


async def subscribed(publisher: Publisher, server: VllmServer, seen: Seen) -> None:
    """A subscription takes a while to reach its publisher; until then messages are for nobody."""
    async with asyncio.timeout(SECONDS):
        while not seen[Applied.STORED]:
            await publisher.publish(one_block(server, publisher.sequence))
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("topic_in_replay", [True, False], ids=["0.32", "older"])
async def test_what_was_before_us_and_what_is_lost_is_replayed(context, server, topic_in_replay):
    publisher = Publisher(context, topic_in_replay=topic_in_replay)
    index, seen = PrefixIndex(), Seen()
    await publisher.publish(one_block(server, 0))  # nobody listens yet
    endpoints = FixedEndpoints(Endpoint("127.0.0.1:8000"))
    options = VllmOptions(SIZE, port=publisher.port, replay_port=publisher.replay_port)
    async with running(publisher.answer_replays(), follow(options, index, endpoints, seen)):
        await subscribed(publisher, server, seen)
        await until(lambda: index.blocks == publisher.sequence, f"all of it: {dict(seen)}")
        await publisher.publish(one_block(server, publisher.sequence), lost=True)
        await publisher.publish(one_block(server, publisher.sequence))
        await until(lambda: index.blocks == publisher.sequence, f"the lost one too: {dict(seen)}")
    assert seen[StreamOutcome.REPLAYED] >= 2
    assert seen[StreamOutcome.GAP] == seen[StreamOutcome.MALFORMED] == 0
    publisher.close()


async def test_an_endpoint_that_goes_is_forgotten_and_one_that_comes_is_followed(context, server):
    publisher = Publisher(context)
    index, seen = PrefixIndex(), Seen()
    endpoints = FixedEndpoints()
    async with running(follow(VllmOptions(SIZE, port=publisher.port), index, endpoints, seen)):
        endpoints.replace(Endpoint("127.0.0.1:8000"))
        await subscribed(publisher, server, seen)
        assert index.owners == (WorkerRank("127.0.0.1:8000"),)
        endpoints.replace()
        await until(lambda: not index.blocks, "forgotten")
    publisher.close()


async def test_a_server_that_does_not_answer_a_replay_leaves_a_gap(context, server, monkeypatch):
    monkeypatch.setattr("epp_adapter.kv_events_zmq._REPLAY_SILENCE_SECONDS", 0.05)
    publisher = Publisher(context)
    index, seen = PrefixIndex(), Seen()
    endpoints = FixedEndpoints(Endpoint("127.0.0.1:8000"))
    options = VllmOptions(SIZE, port=publisher.port, replay_port=publisher.replay_port)
    async with running(follow(options, index, endpoints, seen)):
        await subscribed(publisher, server, seen)
        await publisher.publish(one_block(server, 50), lost=True)
        await publisher.publish(one_block(server, 51))
        await until(lambda: seen[StreamOutcome.GAP] == 1, f"a gap: {dict(seen)}")
        await until(lambda: index.blocks == 1, "what came after the gap")
    publisher.close()


async def test_servers_that_connect_to_us_are_told_apart_by_their_topic(context, server, tmp_path):
    index, seen = PrefixIndex(), Seen()
    endpoints = FixedEndpoints(Endpoint("127.0.0.1:8000"), Endpoint("127.0.0.2:8000"))
    address = f"ipc://{tmp_path}/events"
    options = VllmOptions(SIZE, bind=address, topic="kv@")
    async with running(follow(options, index, endpoints, seen)):
        publisher = context.socket(SocketType.PUB)
        publisher.connect(address)
        topics = [b"kv@127.0.0.1:8000@model", b"kv@127.0.0.2@model", b"kv@10.9.9.9@model", b"kv", b"other"]

        async def publish_until_seen() -> None:
            sequence = 0
            while len(index.owners) < 2 or not seen[StreamOutcome.UNKNOWN_PUBLISHER]:
                for topic in topics:
                    frames = (topic, sequence.to_bytes(8, "big"), one_block(server, sequence))
                    await publisher.send_multipart(frames)
                await publisher.send_multipart((b"kv@127.0.0.1:8000@model", b"no sequence"))
                sequence += 1
                await asyncio.sleep(0.05)

        async with asyncio.timeout(SECONDS):
            await publish_until_seen()
        publisher.close(linger=0)
    assert set(index.owners) == {WorkerRank("127.0.0.1:8000"), WorkerRank("127.0.0.2:8000")}
    assert seen[StreamOutcome.MALFORMED] == 0


async def test_a_bound_publisher_whose_endpoint_is_gone_is_forgotten(context, server, tmp_path, monkeypatch):
    monkeypatch.setattr("epp_adapter.kv_events_zmq._ABSENCE_SECONDS", 0.0)
    index, seen = PrefixIndex(), Seen()
    endpoints = FixedEndpoints(Endpoint("127.0.0.1:8000"))
    address = f"ipc://{tmp_path}/events"
    async with running(follow(VllmOptions(SIZE, bind=address), index, endpoints, seen)):
        publisher = context.socket(SocketType.PUB)
        publisher.connect(address)

        async def publish_until(condition) -> None:
            async with asyncio.timeout(SECONDS):
                for sequence in range(10_000):
                    if condition():
                        return
                    frames = (b"kv@127.0.0.1@m", sequence.to_bytes(8, "big"), one_block(server, sequence))
                    await publisher.send_multipart(frames)
                    await asyncio.sleep(0.02)

        await publish_until(lambda: index.blocks)
        endpoints.replace()
        await publish_until(lambda: seen[StreamOutcome.ABSENT])
        publisher.close(linger=0)
    assert index.blocks == 0


async def test_an_address_that_cannot_be_bound_is_said_at_once(context, tmp_path):
    taken = context.socket(SocketType.SUB)
    port = taken.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(OSError, match=f"tcp://127.0.0.1:{port}"):
        await follow(
            VllmOptions(SIZE, bind=f"tcp://127.0.0.1:{port}"), PrefixIndex(), FixedEndpoints(), Seen()
        )
    taken.close(linger=0)
