"""The strategies that compete, built as epp-adapter builds them, from its settings."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from epp_adapter.dynamo_settings import DynamoSettings
from epp_adapter.dynamo_wiring import build_dynamo
from epp_adapter.endpoints import Endpoint, FixedEndpoints
from epp_adapter.internal_wiring import build_internal, event_follower
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.strategy import RoutingRequest, RoutingStrategy, StrategyError
from epp_adapter.settings import DynamoEventsSettings, InternalSettings
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT

__all__ = ["NAMES", "contender"]

NAMES: Final = ("random", "round-robin", "internal", "dynamo")
SETTLE_SECONDS: Final = 30.0
# Through the same scheduler, so that nothing but the choice differs.
RANDOM_PICKER: Final = b"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: random-picker, parameters: {maxNumOfEndpoints: 1}}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]
"""


@asynccontextmanager
async def contender(
    name: str, endpoints: tuple[Endpoint, ...], *, nats: str, folder: Path, seed: int
) -> AsyncIterator[RoutingStrategy]:
    """A strategy that knows its workers and follows their events."""
    if name == "round-robin":
        yield RoundRobin(name)
    elif name == "dynamo":
        parts = build_dynamo(
            name, DynamoSettings(endpoint=ENDPOINT, block_size=BLOCK_SIZE, discovery="file"), "simulate"
        )
        try:
            await _until_it_picks(parts.step.strategy, endpoints)
            yield parts.step.strategy
        finally:
            await parts.close(SETTLE_SECONDS)
            parts.shutdown()
    else:
        async with _internal(name, endpoints, nats=nats, folder=folder, seed=seed) as strategy:
            yield strategy


@asynccontextmanager
async def _internal(
    name: str, endpoints: tuple[Endpoint, ...], *, nats: str, folder: Path, seed: int
) -> AsyncIterator[RoutingStrategy]:
    if name == "random":
        (folder / "random.yaml").write_bytes(RANDOM_PICKER)
        settings = InternalSettings(config="random.yaml")
    else:
        events = DynamoEventsSettings(endpoint=ENDPOINT, nats=nats)
        settings = InternalSettings(block_size=BLOCK_SIZE, kv_events=events)
    parts = build_internal(name, settings, folder, clock=time.monotonic, random=random.Random(seed))
    follow = event_follower(
        parts, FixedEndpoints(*endpoints), lambda *_: None, nats_server=nats, source="simulate"
    )
    following = None if follow is None else asyncio.create_task(follow())
    try:
        await asyncio.sleep(0.5)  # the subscription takes effect some time after it is made
        yield parts.strategy
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _until_it_picks(strategy: RoutingStrategy, endpoints: tuple[Endpoint, ...]) -> None:
    """Dynamo's router learns its workers some time after it was made; wait until it has used each of them."""
    seen: set[Endpoint] = set()
    number = 0
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(seen) < len(endpoints):
            number += 1
            ids = TokenIds.pack([number % 1000] * BLOCK_SIZE)
            try:
                pick = await strategy.pick(RoutingRequest(f"warm-{number}", token_ids=ids), endpoints)
            except StrategyError:
                await asyncio.sleep(0.05)
                continue
            seen.add(pick.destination.first)
            await pick.finished(Termination.ENDED)
