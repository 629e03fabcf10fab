"""From settings to strategies and their fallbacks, for __main__."""

import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from epp_adapter.dynamo_wiring import DynamoParts, build_dynamo
from epp_adapter.endpoints import EndpointSource
from epp_adapter.internal_wiring import InternalParts, build_internal, event_follower
from epp_adapter.metrics import Metrics
from epp_adapter.routing.fallback import FallbackStrategy, Step
from epp_adapter.routing.load import LoadSource
from epp_adapter.routing.round_robin import RoundRobin
from epp_adapter.routing.strategy import RoutingStrategy
from epp_adapter.scheduler_metrics import SchedulerMetrics
from epp_adapter.settings import (
    DynamoSelectionSettings,
    DynamoSettings,
    InternalSettings,
    Settings,
    StrategySettings,
)

__all__ = ["Strategies", "build_internals", "build_strategies", "followers", "with_fallbacks"]


@dataclass(slots=True)
class Strategies:
    """The configured strategies by name, each a step of the fallback, and what has to be ended with them."""

    steps: dict[str, Step] = field(default_factory=dict)
    dynamo: list[DynamoParts] = field(default_factory=list)
    internal: list[InternalParts] = field(default_factory=list)

    def bookings_active(self) -> int:
        return sum(parts.bookings_active() for parts in self.dynamo)

    async def close(self, seconds: float) -> None:
        for parts in self.dynamo:
            await parts.close(seconds)
            parts.shutdown()


def with_fallbacks(
    settings: Settings, strategies: Strategies, metrics: Metrics
) -> Mapping[str, RoutingStrategy]:
    return {
        name: FallbackStrategy([strategies.steps[step] for step in settings.chain(name)], metrics.fell_back)
        for name in settings.strategies
    }


def build_strategies(settings: Settings, config: Path, loads: LoadSource | None) -> Strategies:
    built = Strategies(internal=build_internals(settings, config, loads))
    for parts in built.internal:
        built.steps[parts.strategy.name] = Step(parts.strategy)
    for name, chosen in settings.strategies.items():
        if not isinstance(chosen, InternalSettings):
            built.steps[name] = _step(name, chosen, built, str(config))
    return built


def build_internals(settings: Settings, config: Path, loads: LoadSource | None = None) -> list[InternalParts]:
    interval = settings.scrape.interval_ms / 1e3 if settings.scrape else 0.0
    return [
        build_internal(
            name,
            chosen,
            config.parent,
            clock=time.monotonic,
            random=Random(chosen.seed),  # noqa: S311  # balances load; nobody gains by guessing it
            loads=loads,
            scrape_seconds=interval,
        )
        for name, chosen in settings.strategies.items()
        if isinstance(chosen, InternalSettings)
    ]


def followers(
    strategies: Strategies,
    endpoints: EndpointSource,
    metrics: SchedulerMetrics,
    *,
    source: str,
    nats_server: str,
) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """What keeps the strategies' knowledge fresh; each is to run until the process ends."""
    found: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        partial(parts.follow, endpoints) for parts in strategies.dynamo if parts.follow is not None
    ]
    for parts in strategies.internal:
        name = parts.strategy.name
        metrics.watch(name, parts.strategy.requests_in_flight, parts.prefix_blocks)
        follower = event_follower(
            parts,
            endpoints,
            metrics.kv_events(name),
            nats_server=nats_server,
            source=f"{source}: strategies.{name}",
        )
        if follower is not None:
            found.append(follower)
    return found


def _step(name: str, chosen: StrategySettings, built: Strategies, source: str) -> Step:
    if not isinstance(chosen, DynamoSettings | DynamoSelectionSettings):  # internal ones are built already
        return Step(RoundRobin(name))
    parts = build_dynamo(name, chosen, source)
    built.dynamo.append(parts)
    return parts.step
