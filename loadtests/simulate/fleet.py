"""Dynamo's mocker workers behind NATS, and a client that has them serve token ids directly."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epp_adapter.endpoints import Endpoint
from loadtests.stack import dynamo_parts
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT, DynamoPlane
from loadtests.stack.model_source import DEFAULT_MODEL, DEFAULT_NAME
from loadtests.stack.probes import free_ports
from loadtests.stack.processes import ProcessSpec, Supervisor

__all__ = ["Client", "Fleet", "Pace", "Served"]

START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker is made: `blocks` of KV cache, and its speed against the mocker's own model of a GPU."""

    workers: int = 8
    blocks: int = 2_048
    speedup: float = 0.5


class Fleet:
    """Owns NATS and one process with all workers, whose caches are empty, from entering it to leaving it."""

    def __init__(self, pace: Pace, logs: Path) -> None:
        self._pace = pace
        self._supervisor = Supervisor(logs)
        (port,) = free_ports(1)
        self.plane = DynamoPlane(port, logs / "discovery")

    def __enter__(self) -> Self:
        try:
            nats = self._supervisor.start(dynamo_parts.nats(self.plane))
            self._supervisor.wait_ready([nats], deadline_seconds=START_SECONDS)
            mockers = self._supervisor.start(self._mockers())
            self._supervisor.wait_ready([mockers], deadline_seconds=START_SECONDS)
        except BaseException:
            self._supervisor.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._supervisor.stop()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The workers by their instance ids. Nothing listens at the addresses: work is sent past them."""
        return tuple(
            Endpoint(f"127.0.0.1:{number}", instance) for number, instance in enumerate(self._instances(), 1)
        )

    def _mockers(self) -> ProcessSpec:
        pace = self._pace
        return ProcessSpec(
            name="mockers",
            command=(
                *(sys.executable, "-m", "dynamo.mocker"),
                *("--model-path", str(DEFAULT_MODEL), "--model-name", DEFAULT_NAME),
                *("--endpoint", f"dyn://{ENDPOINT}", "--num-workers", str(pace.workers)),
                *("--block-size", str(BLOCK_SIZE), "--num-gpu-blocks-override", str(pace.blocks)),
                *("--kv-bytes-per-token", "114688", "--speedup-ratio", str(pace.speedup)),
            ),
            env={**self.plane.env, "DYN_LOG": "warn"},
            ready=lambda: len(self._instances()) >= pace.workers,
        )

    def _instances(self) -> list[int]:
        found = set()
        for path in (self.plane.discovery / "v1" / "instances").glob("*"):
            try:
                instance = json.loads(path.read_bytes())
            except (OSError, ValueError):  # being written
                continue
            if ".".join(instance[key] for key in ("namespace", "component", "endpoint")) == ENDPOINT:
                found.add(int(instance["instance_id"]))
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker answered. `first_token_at` and `done_at` are readings of time.perf_counter."""

    token_ids: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int
    first_token_at: float
    done_at: float


class Client:
    """Sends prompts to the worker it is told. The environment must have the plane's variables."""

    def __init__(self, runtime: Any, workers: Any) -> None:
        self._runtime = runtime
        self._workers = workers

    @classmethod
    async def join(cls, workers: int) -> Self:
        # It reads its log level when it is imported, so only once the environment is set.
        from dynamo.runtime import DistributedRuntime  # noqa: PLC0415

        runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp", event_plane="nats")
        client = await runtime.endpoint(ENDPOINT).client()
        async with asyncio.timeout(START_SECONDS):
            while len(client.instance_ids()) < workers:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.05)
        return cls(runtime, client)

    async def serve(
        self, token_ids: Sequence[int], instance_id: int, reply_tokens: int, first_token: Any
    ) -> Served:
        """`first_token` is awaited when the answer begins."""
        request = {
            "model": DEFAULT_NAME,
            "token_ids": list(token_ids),
            "stop_conditions": {"max_tokens": reply_tokens, "ignore_eos": True},
            "sampling_options": {},
            "output_options": {},
            "eos_token_ids": [],
            "annotations": [],
        }
        reply: list[int] = []
        usage: dict[str, Any] = {}
        first_token_at = 0.0
        async for chunk in await self._workers.direct(request, instance_id):
            data = chunk.data()
            if not first_token_at:
                first_token_at = time.perf_counter()
                await first_token()
            reply.extend(data["token_ids"])
            usage = data.get("completion_usage") or usage
        return Served(
            token_ids=tuple(reply),
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            first_token_at=first_token_at,
            done_at=time.perf_counter(),
        )

    def leave(self) -> None:
        self._runtime.shutdown()
