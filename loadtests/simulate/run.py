"""One strategy serves the whole workload on workers whose caches are empty."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.strategy import RoutingRequest, RoutingStrategy
from extproc.events import Termination
from extproc.token_metadata import TokenIds
from loadtests.simulate.fleet import Client
from loadtests.simulate.workload import Conversation

__all__ = ["Outcome", "Sample", "run"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. `first_token_seconds` counts from before the pick."""

    worker: str
    prompt_tokens: int
    cached_tokens: int
    pick_seconds: float
    first_token_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """All requests of one strategy; `failed` has the errors by name."""

    strategy: str
    samples: tuple[Sample, ...]
    failed: Counter[str]

    @property
    def hit_rate(self) -> float:
        """Cached prompt tokens by prompt tokens, as the workers count them."""
        prompted = sum(sample.prompt_tokens for sample in self.samples)
        return sum(sample.cached_tokens for sample in self.samples) / prompted if prompted else 0.0

    def first_token_ms(self, quantile: float) -> float:
        ordered = sorted(sample.first_token_seconds for sample in self.samples)
        return 1e3 * ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]

    @property
    def imbalance(self) -> float:
        """Requests of the busiest worker by those of the average one."""
        counts = Counter(sample.worker for sample in self.samples)
        return max(counts.values()) * len(counts) / len(self.samples)


async def run(
    strategy: RoutingStrategy,
    workload: Sequence[Conversation],
    endpoints: tuple[Endpoint, ...],
    client: Client,
) -> Outcome:
    samples: list[Sample] = []
    failed: Counter[str] = Counter()
    numbers = itertools.count()

    async def converse(conversation: Conversation) -> None:
        await asyncio.sleep(conversation.start_seconds)
        history = conversation.system
        for turn in conversation.turns:
            history += turn.said
            try:
                sample, reply = await request(history, turn.reply_tokens)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is counted and the bound is missed
                failed[type(error).__name__] += 1
                return
            samples.append(sample)
            history += reply
            await asyncio.sleep(turn.pause_seconds)

    async def request(history: tuple[int, ...], reply_tokens: int) -> tuple[Sample, tuple[int, ...]]:
        started = time.perf_counter()
        asked = RoutingRequest(f"{strategy.name}-{next(numbers)}", token_ids=TokenIds.pack(history))
        pick = await strategy.pick(asked, endpoints)
        picked = time.perf_counter()
        try:
            chosen = pick.destination.first
            assert chosen.dynamo_instance_id is not None
            served = await client.serve(history, chosen.dynamo_instance_id, reply_tokens, pick.first_token)
        finally:
            await pick.finished(Termination.ENDED)
        return (
            Sample(
                worker=chosen.address,
                prompt_tokens=served.prompt_tokens,
                cached_tokens=served.cached_tokens,
                pick_seconds=picked - started,
                first_token_seconds=served.first_token_at - started,
                total_seconds=served.done_at - started,
            ),
            served.token_ids,
        )

    await asyncio.gather(*(converse(each) for each in workload))
    return Outcome(strategy.name, tuple(samples), failed)
