"""Where a pool's endpoints and rules come from, by the settings: a file, or an InferencePool."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epp_adapter.discovery.static_file import EndpointFile, ReloadOutcome
from epp_adapter.endpoints import EndpointSource
from epp_adapter.pool_metrics import PoolMetrics
from epp_adapter.pool_rules import FixedRules, RuleSource
from epp_adapter.pool_settings import PoolSettings, fixed_rules
from epp_adapter.settings import Settings
from extproc.settings_file import SettingsError

__all__ = ["Background", "CannotDiscoverError", "PoolSource", "check_endpoints_file", "open_source"]

_log = logging.getLogger(__name__)

# Runs until it is cancelled.
Background = Callable[[], Coroutine[Any, Any, Any]]


class CannotDiscoverError(Exception):
    """Something outside the settings keeps us from finding the pool. The message is one complete line."""


@dataclass(frozen=True, slots=True)
class PoolSource:
    """`synced` returns once the endpoints are known; `watch` keeps them known."""

    endpoints: EndpointSource
    rules: RuleSource
    watch: Background
    synced: Callable[[], Awaitable[None]]


async def open_source(
    settings: Settings,
    config: Path,
    metrics: PoolMetrics,
    reloaded: Callable[[ReloadOutcome], None],
    stack: AsyncExitStack,
) -> PoolSource:
    """What is opened is closed with `stack`. Raises SettingsError and CannotDiscoverError."""
    fixed = FixedRules(fixed_rules(settings.objectives, settings.model_rewrites))
    if settings.endpoints.pool is not None:
        return await _open_pool(settings.endpoints.pool, str(config), metrics, fixed, stack)
    file = _endpoints_file(settings, config, reloaded)

    async def known() -> None:
        pass

    return PoolSource(file, fixed, lambda: file.watch(settings.endpoints.poll_seconds), known)


def check_endpoints_file(settings: Settings, config: Path) -> int | None:
    """How many endpoints the file has; None where there is none to check. Raises SettingsError."""
    if settings.endpoints.file is None:
        return None
    return len(_endpoints_file(settings, config, lambda _: None).current().endpoints)


def _endpoints_file(
    settings: Settings, config: Path, reloaded: Callable[[ReloadOutcome], None]
) -> EndpointFile:
    """A relative path stands beside the settings."""
    return EndpointFile(config.parent / (settings.endpoints.file or ""), reloaded)


async def _open_pool(
    settings: PoolSettings, source: str, metrics: PoolMetrics, fixed: RuleSource, stack: AsyncExitStack
) -> PoolSource:
    try:
        # An optional extra: whoever lists endpoints in a file does not install it.
        from epp_adapter.discovery import kubernetes  # noqa: PLC0415
    except ImportError:
        problem = "needs the Kubernetes client: pip install 'tokenext-chain[kubernetes]'"
        raise SettingsError(source, problem, "endpoints.pool") from None
    from epp_adapter.discovery.inference_pool import PoolDiscovery  # noqa: PLC0415
    from epp_adapter.discovery.pool_state import PoolState  # noqa: PLC0415
    from epp_adapter.discovery.watching import WatchOptions  # noqa: PLC0415

    try:
        api = await stack.enter_async_context(
            kubernetes.connected(kubeconfig=settings.kubeconfig, api_server=settings.api_server)
        )
    except kubernetes.ClusterConfigError as error:
        raise CannotDiscoverError(f"endpoints.pool: {error}") from error
    namespace = settings.namespace
    if namespace is None:
        namespace = await asyncio.to_thread(kubernetes.own_namespace)
    state = PoolState(
        settings.name, dynamo_workers=settings.dynamo_workers, unreadable=metrics.object_unreadable
    )
    discovery = PoolDiscovery(
        api,
        state,
        pool_name=settings.name,
        namespace=namespace,
        rules=settings.rules,
        options=WatchOptions(watch_seconds=settings.resync_seconds),
        observe=metrics.watched,
    )
    _log.info("following InferencePool %s in namespace %s", settings.name, namespace)
    rules: RuleSource = discovery if settings.rules else fixed
    return PoolSource(discovery, rules, discovery.run, discovery.synced)
