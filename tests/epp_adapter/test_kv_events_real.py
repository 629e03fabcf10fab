"""The exact index on real parts: NATS, Dynamo's mocker workers, and Dynamo's own index of the same events."""

import asyncio
import json
import random
import socket
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import nats as nats_client
import pytest
from dynamo.llm import KvRouter, KvRouterConfig
from dynamo.runtime import DistributedRuntime

from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.kv_events import StreamOutcome, WorkerRoll
from epp_adapter.kv_events_dynamo import DynamoEventStream, NatsOptions
from epp_adapter.kv_events_dynamo import follow as follow_nats
from epp_adapter.kv_events_zmq import VllmOptions
from epp_adapter.kv_events_zmq import follow as follow_zmq
from epp_adapter.routing.prefix_index import Applied, PrefixIndex, PrefixMatch, WorkerRank
from extproc.dynamo_blocks import block_keys
from extproc.token_metadata import TokenIds
from tests.epp_adapter.dynamo_stack import (
    BLOCK_SIZE,
    ENDPOINT,
    START_SECONDS,
    VOCABULARY,
    nats,
    process,
    write_model,
)
from tests.epp_adapter.test_kv_events import DynamoWorker, ids, keys

pytestmark = pytest.mark.integration

WORKERS = 3
SETTLE_SECONDS = 20.0


class Seen(Counter):
    def __call__(self, outcome, number: int) -> None:
        self[outcome] += number


async def until(condition, what: str, seconds: float = SETTLE_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in {seconds} s: {what}")


@asynccontextmanager
async def running(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "it ended by itself"


def environ(monkeypatch, environment) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NATS_STARTUP_CONNECT_TIMEOUT_SECONDS", "5")
    monkeypatch.setenv("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "5")


def dynamos_router():
    """Dynamo's own router, beside us in this process, and the runtime it lives in."""
    runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp", event_plane="nats")
    return runtime, KvRouter(runtime.endpoint(ENDPOINT), BLOCK_SIZE, KvRouterConfig())


async def serve(workers, token_ids: list[int], instance_id: int, answer: int = 8) -> None:
    request = {
        "model": "tiny",
        "token_ids": token_ids,
        "stop_conditions": {"max_tokens": answer},
        "sampling_options": {},
        "output_options": {},
        "eos_token_ids": [],
        "annotations": [],
    }
    async for _ in await workers.direct(request, instance_id):
        pass


class Conversations:
    """Prompts that share prefixes, as turns of conversations and as users of one system prompt do."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._systems = [self._tokens(blocks) for blocks in (3, 20, 60)]
        self.prompts: list[list[int]] = []

    def _tokens(self, blocks: int) -> list[int]:
        return [self._random.randrange(2, VOCABULARY) for _ in range(blocks * BLOCK_SIZE)]

    def next(self) -> list[int]:
        if self.prompts and self._random.random() < 0.5:
            before = self._random.choice(self.prompts)
        else:
            before = self._random.choice(self._systems)
        turn = (
            self._tokens(self._random.randint(1, 30)) + self._tokens(1)[: self._random.randrange(BLOCK_SIZE)]
        )
        self.prompts.append(before[: 150 * BLOCK_SIZE] + turn)
        return self.prompts[-1]


async def test_the_index_agrees_with_dynamos_own_overlap_scores(tmp_path, monkeypatch, caplog):
    """The same events of three workers, with evictions: every worker's overlap of every prompt is equal."""
    caplog.set_level("INFO", logger="epp_adapter.kv_events_dynamo")
    with small_workers(tmp_path, WORKERS) as environment:
        environ(monkeypatch, environment)
        runtime, router = dynamos_router()
        workers = await runtime.endpoint(ENDPOINT).client()
        await workers.wait_for_instances()
        instances = sorted(workers.instance_ids())
        index, seen = PrefixIndex(), Seen()
        stream = DynamoEventStream(index, seen)
        options = NatsOptions(environment["NATS_SERVER"], ENDPOINT)
        work = follow_nats(options, stream, WorkerRoll(index, seen), lambda: set(instances))
        async with running(work):
            await until(lambda: "following" in caplog.text, "subscribed")
            await asyncio.sleep(0.2)
            prompts = Conversations(1)

            async def one_client(number: int) -> None:
                for turn in range(120):
                    await serve(workers, prompts.next(), instances[(number + turn) % WORKERS])

            await asyncio.gather(*(one_client(number) for number in range(9)))
            asked = prompts.prompts[::4] + [prompts.next() for _ in range(50)]
            compared = await settled_comparison(router, index, asked)
        runtime.shutdown()
    assert compared > 300
    assert seen[Applied.REMOVED] > 100, f"nothing was evicted, so little was shown: {dict(seen)}"
    assert seen[StreamOutcome.GAP] == seen[StreamOutcome.MALFORMED] == seen[Applied.ORPHANED] == 0


async def settled_comparison(router, index: PrefixIndex, prompts: list[list[int]]) -> int:
    """Compare until both have had the last event; returns how many overlaps above 0 were equal."""
    different: list = []
    for _ in range(40):
        different, compared = [], 0
        for prompt in prompts:
            theirs = await router.get_overlap_scores(prompt)
            dynamo = {
                WorkerRank(each["worker_id"], each["dp_rank"]): each["device_blocks"]
                for each in theirs["workers"]
                if each["device_blocks"]
            }
            found = index.matches(block_keys(TokenIds.pack(prompt).packed, BLOCK_SIZE))
            ours = {owner: match.device_blocks for owner, match in found.items()}
            compared += len(ours)
            if ours != dynamo:
                different.append((dynamo, ours))
        if not different:
            return compared
        await asyncio.sleep(0.25)
    pytest.fail(f"{len(different)} of {len(prompts)} prompts differ, first {different[0]}")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def nats_on(port: int, log: Path):
    binary = str(Path(sys.executable).with_name("nats-server"))
    with process([binary, "-a", "127.0.0.1", "-p", str(port)], log, {}):
        yield f"nats://127.0.0.1:{port}"


async def publisher_to(url: str):
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                return await nats_client.connect(url, max_reconnect_attempts=0, error_cb=_ignore)
            except (OSError, nats_client.errors.Error):
                await asyncio.sleep(0.05)


async def _ignore(error: Exception) -> None:
    del error


async def test_nats_may_come_late_and_go_and_what_was_missed_is_a_gap(tmp_path):
    (port,) = free_ports(1)
    index, seen = PrefixIndex(), Seen()
    options = NatsOptions(f"nats://127.0.0.1:{port}", ENDPOINT)
    stream = DynamoEventStream(index, seen)
    worker = DynamoWorker()
    prompts = [ids(2, seed=seed) for seed in range(3)]

    async def publish_until_seen(connection, message: bytes, outcome) -> None:
        """A subscription is not there at once after a connection is."""
        before = seen[outcome]
        while seen[outcome] == before:
            await connection.publish(options.subject, message)
            await connection.flush()
            await asyncio.sleep(0.1)

    async with running(follow_nats(options, stream, WorkerRoll(index, seen), set)) as following:
        await asyncio.sleep(0.3)
        assert not following.done(), "without NATS it waits"
        with nats_on(port, tmp_path / "first.log") as url:
            connection = await publisher_to(url)
            async with asyncio.timeout(SETTLE_SECONDS):
                await publish_until_seen(
                    connection, worker.message(worker.stored(prompts[0])), Applied.STORED
                )
            await connection.close()
        await asyncio.sleep(0.2)
        assert index.matches(keys(prompts[0])), "what is known stays known while NATS is away"
        worker.message(worker.stored(prompts[1]))  # published into nothing
        with nats_on(port, tmp_path / "second.log") as url:
            connection = await publisher_to(url)
            async with asyncio.timeout(SETTLE_SECONDS):
                await publish_until_seen(
                    connection, worker.message(worker.stored(prompts[2])), Applied.STORED
                )
            await connection.close()
    assert seen[StreamOutcome.GAP] >= 1
    assert index.matches(keys(prompts[0])) == {}
    assert set(index.owners) == {WorkerRank(worker.worker)}


@contextmanager
def small_workers(folder: Path, workers: int, *arguments: str):
    """Mockers with few blocks, so that they evict; yields the environment to join them with."""
    with nats(folder) as url:
        environment = {
            "NATS_SERVER": url,
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(folder / "discovery"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "nats",
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
            "DYN_EVENT_PLANE_HOST": "127.0.0.1",
            "DYN_SYSTEM_HOST": "127.0.0.1",
            "DYN_LOG": "warn",
            "HF_HUB_OFFLINE": "1",
        }
        write_model(folder / "model")
        command = [sys.executable, "-m", "dynamo.mocker", "--model-path", str(folder / "model")]
        command += ["--model-name", "tiny", "--endpoint", f"dyn://{ENDPOINT}", "--num-workers", str(workers)]
        command += ["--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", "1024"]
        command += ["--speedup-ratio", "20", "--kv-bytes-per-token", "114688", *arguments]
        with process(command, folder / "mocker.log", environment) as mocker:
            registered = folder / "discovery" / "v1" / "mdc"
            deadline = time.monotonic() + START_SECONDS
            while len(list(registered.glob("*"))) < workers:
                assert mocker.poll() is None, (folder / "mocker.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield environment


async def test_a_vllm_publisher_is_followed_and_replays_what_was_before_us(tmp_path, monkeypatch):
    """One worker: what it stored before we came is replayed, and then its events are followed live."""
    events, replays = free_ports(2)
    ports = ("--zmq-kv-events-ports", str(events), "--zmq-replay-ports", str(replays))
    with small_workers(tmp_path, 1, *ports) as environment:
        environ(monkeypatch, environment)
        runtime, router = dynamos_router()
        workers = await runtime.endpoint(ENDPOINT).client()
        await workers.wait_for_instances()
        (instance,) = workers.instance_ids()
        before, after = Conversations(5).next(), Conversations(6).next()
        await serve(workers, before, instance)

        address = "127.0.0.1:8000"
        index, seen = PrefixIndex(), Seen()
        options = VllmOptions(BLOCK_SIZE, port=events, replay_port=replays)
        async with running(follow_zmq(options, index, FixedEndpoints(Endpoint(address)), seen)):
            await asyncio.sleep(0.5)
            await serve(workers, after, instance)

            def known(prompt: list[int]) -> bool:
                found = index.matches(block_keys(TokenIds.pack(prompt).packed, BLOCK_SIZE))
                full = len(prompt) // BLOCK_SIZE
                return found == {WorkerRank(address): PrefixMatch(full, full)}

            await until(lambda: known(after), f"the live prompt is known: {dict(seen)}")
            await until(lambda: known(before), f"the earlier prompt was replayed: {dict(seen)}")
            assert seen[StreamOutcome.REPLAYED] > 0
            prompts = Conversations(7)
            for _ in range(60):  # more than it has blocks for, so that some are removed
                await serve(workers, prompts.next(), instance)
            await settled_comparison_of(router, index, instance, address, prompts.prompts)
        runtime.shutdown()
    assert seen[Applied.REMOVED] > 10
    assert seen[StreamOutcome.GAP] == seen[StreamOutcome.MALFORMED] == 0


async def settled_comparison_of(router, index, instance: int, address: str, prompts) -> None:
    """The mocker relays the same events to Dynamo's index; our endpoint is known by its address."""
    for _ in range(40):
        different = []
        for prompt in prompts:
            theirs = await router.get_overlap_scores(prompt)
            dynamo = [each["device_blocks"] for each in theirs["workers"] if each["worker_id"] == instance]
            found = index.matches(block_keys(TokenIds.pack(prompt).packed, BLOCK_SIZE))
            ours = [match.device_blocks for owner, match in found.items() if owner.worker == address]
            if (ours or [0]) != (dynamo or [0]):
                different.append((dynamo, ours))
        if not different:
            return
        await asyncio.sleep(0.25)
    pytest.fail(f"{len(different)} of {len(prompts)} prompts differ: {json.dumps(different[:3])}")
