"""From settings to the strategies that Dynamo's routers serve, for __main__."""

import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from epp_adapter.dynamo_settings import DynamoSelectionSettings, DynamoSettings
from epp_adapter.endpoints import EndpointSource
from epp_adapter.routing.dynamo import DynamoStrategy, QueryRules
from epp_adapter.routing.fallback import Step
from epp_adapter.routing.selection import SelectionStrategy, WorkerPorts
from epp_adapter.routing.strategy import StrategyError
from extproc.settings_file import SettingsError

__all__ = ["CannotJoinError", "DynamoParts", "build_dynamo"]

Follow = Callable[[EndpointSource], Coroutine[Any, Any, Any]]


class CannotJoinError(Exception):
    """Dynamo cannot be used here. The message is for the operator, and one complete line."""


@dataclass(frozen=True, slots=True)
class DynamoParts:
    """A strategy and its life: `follow` runs until the process ends, then `close`, then `shutdown`."""

    step: Step
    bookings_active: Callable[[], int]
    close: Callable[[float], Awaitable[None]]
    shutdown: Callable[[], None]
    follow: Follow | None = None


def build_dynamo(name: str, settings: DynamoSettings | DynamoSelectionSettings, source: str) -> DynamoParts:
    """Must be called where an event loop runs, before anything is served. `source` is the settings file.

    Raises SettingsError and CannotJoinError.
    """
    # At Dynamo's own default, info, its router writes a line for every request beside ours.
    os.environ.setdefault("DYN_LOG", "warn")  # read when Dynamo is imported
    try:
        # An optional extra: whoever does not route with Dynamo does not install it.
        from epp_adapter.routing import dynamo_runtime, selection_runtime  # noqa: PLC0415
    except ImportError:
        problem = "needs Dynamo's packages: pip install 'tokenext-chain[dynamo]'"
        raise SettingsError(source, problem, f"strategies.{name}") from None
    if isinstance(settings, DynamoSettings):
        return _kv_router(name, settings, dynamo_runtime)
    return _selection(name, settings, selection_runtime)


def _kv_router(name: str, settings: DynamoSettings, dynamo_runtime: ModuleType) -> DynamoParts:
    options = dynamo_runtime.DynamoOptions(
        discovery=settings.discovery,
        request_plane=settings.request_plane,
        event_plane=settings.event_plane,
        connect_seconds=settings.connect_seconds,
    )
    config = settings.router.arguments()
    prefill = None
    try:
        runtime = dynamo_runtime.DynamoRuntime.connect(options)
        router = runtime.router(_plain(settings.endpoint), settings.block_size, config)
        if settings.prefill_endpoint is not None:
            # A prefill worker keeps no blocks for a request once the prompt is computed.
            config = {**config, "router_track_active_blocks": False}
            prefill = runtime.router(_plain(settings.prefill_endpoint), settings.block_size, config)
    except dynamo_runtime.DynamoConnectError as error:
        raise CannotJoinError(f"strategy {name}: {error}") from error
    rules = QueryRules(settings.policy_classes, settings.cache_namespace_header)
    strategy = DynamoStrategy(name, router, prefill=prefill, rules=rules)
    return DynamoParts(
        Step(strategy, settings.deadline_ms / 1e3),
        lambda: strategy.bookings_active,
        strategy.close,
        runtime.shutdown,
    )


def _plain(endpoint: str) -> str:
    return endpoint.removeprefix("dyn://")


def _selection(name: str, settings: DynamoSelectionSettings, selection_runtime: ModuleType) -> DynamoParts:
    options = selection_runtime.SelectionOptions(
        block_size=settings.block_size,
        data_parallel_size=settings.data_parallel_size,
        indexer_threads=settings.indexer_threads,
        replica_sync_port=settings.replica_sync_port,
        replica_sync_peers=settings.replica_sync_peers,
        overrides=settings.overrides.arguments(),
    )
    events = settings.kv_events
    ports = WorkerPorts(events.port, events.port_label, events.replay_offset, settings.data_parallel_size)
    try:
        client = selection_runtime.SelectionClient(options)
    except StrategyError as error:
        raise CannotJoinError(f"strategy {name}: {error}") from error
    rules = QueryRules(cache_namespace_header=settings.cache_namespace_header)
    strategy = SelectionStrategy(name, client, ports, rules)
    return DynamoParts(
        Step(strategy, settings.deadline_ms / 1e3),
        lambda: strategy.bookings_active,
        strategy.close,
        client.shutdown,
        partial(strategy.follow, poll_seconds=settings.poll_seconds),
    )
