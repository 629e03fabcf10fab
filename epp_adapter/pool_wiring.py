"""From settings to the pool as exchanges see it, for __main__: endpoints, health, load and rules."""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry

from epp_adapter.discovery.static_file import ReloadOutcome
from epp_adapter.endpoints import EndpointSource
from epp_adapter.model_rewriting import ModelRewriting
from epp_adapter.passive_health import Failure, HealthChange, PassiveHealth, Transition
from epp_adapter.pool_metrics import PoolMetrics
from epp_adapter.pool_settings import ScrapeSettings
from epp_adapter.pool_sources import Background, open_source
from epp_adapter.probe import HttpProbe, Prober
from epp_adapter.routing.load import LoadSource
from epp_adapter.scrape import Scrape, ScrapeOptions, ScrapeOutcome, Scraper
from epp_adapter.settings import Settings

__all__ = ["Pool"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """`background` keeps it fresh; `synced` returns once it is known. `metrics` observes exchanges too.
    `loads` None: none are scraped.
    """

    endpoints: EndpointSource
    loads: LoadSource | None
    health: PassiveHealth
    rewriting: ModelRewriting
    metrics: PoolMetrics
    background: tuple[Background, ...]
    synced: Callable[[], Awaitable[None]]

    @classmethod
    async def open(
        cls,
        settings: Settings,
        config: Path,
        registry: CollectorRegistry,
        reloaded: Callable[[ReloadOutcome], None],
        stack: AsyncExitStack,
        *,
        scraped: Callable[[Scrape], None],
    ) -> "Pool":
        """`scraped` hears of every scrape. What is opened is closed with `stack`.

        Raises SettingsError and CannotDiscoverError.
        """
        metrics = PoolMetrics(registry)

        def changed(change: HealthChange) -> None:
            metrics.health_changed(change)
            if change.transition is Transition.SET_ASIDE:
                _log.warning("%s set aside for %.1f s: %s", change.address, change.seconds, change.failure)
            else:
                _log.info("%s readmitted", change.address)

        health = PassiveHealth(settings.health.options(), changed)
        metrics.watch(lambda: health.set_aside, lambda: health.down)
        source = await open_source(settings, config, metrics, reloaded, stack)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        endpoints = source.endpoints
        prober = Prober(health, endpoints, HttpProbe(session, settings.health.probe()), time.monotonic)
        background: list[Background] = [source.watch, prober.run]
        scraper = None
        if settings.scrape is not None:
            scraper = _scraper(settings.scrape, endpoints, session, health, metrics, scraped=scraped)
            background.append(scraper.run)
        return cls(
            endpoints=endpoints,
            loads=scraper,
            health=health,
            rewriting=ModelRewriting(source.rules, require_model=settings.require_model),
            metrics=metrics,
            background=tuple(background),
            synced=source.synced,
        )


def _scraper(
    settings: ScrapeSettings,
    endpoints: EndpointSource,
    session: aiohttp.ClientSession,
    health: PassiveHealth,
    metrics: PoolMetrics,
    *,
    scraped: Callable[[Scrape], None],
) -> Scraper:
    def heed(scrape: Scrape) -> None:
        metrics.scraped(scrape)
        scraped(scrape)
        if scrape.outcome is ScrapeOutcome.UNREACHABLE and settings.port is None:
            # Nobody listens where requests would go.
            health.failed(scrape.endpoint, Failure.UNREACHABLE, time.monotonic())

    options = ScrapeOptions(
        engine=settings.engine,
        engine_label=settings.engine_label,
        path=settings.path,
        port=settings.port,
        interval_seconds=settings.interval_ms / 1e3,
        timeout_seconds=settings.timeout_ms / 1e3,
        staleness_seconds=settings.staleness_ms / 1e3,
        concurrency=settings.concurrency,
    )
    scraper = Scraper(endpoints, session, options, time.monotonic, heed)
    metrics.watch_loads(scraper.fresh)
    return scraper
