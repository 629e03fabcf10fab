"""`epp-adapter`: reads the configuration and wires everything; nothing else in the package does either."""

import argparse
import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from epp_adapter.dynamo_wiring import CannotJoinError
from epp_adapter.exchange import EppExchange
from epp_adapter.exchange_context import Routing
from epp_adapter.exchange_log import ExchangeLog
from epp_adapter.gateway_metrics import GatewayMetrics
from epp_adapter.help_text import DESCRIPTION, ENVIRONMENT, SERVE
from epp_adapter.metrics import Metrics
from epp_adapter.observers import Observers, observers
from epp_adapter.pool_sources import CannotDiscoverError, check_endpoints_file
from epp_adapter.pool_wiring import Pool
from epp_adapter.records.callout import CalloutTokenizer
from epp_adapter.records.callout_tls import callout_tls
from epp_adapter.records.finder import RecordFinder
from epp_adapter.records.tokenizer import Tokenizer
from epp_adapter.routing.load import NO_LOADS
from epp_adapter.routing.strategy import RoutingStrategy
from epp_adapter.scheduler_metrics import SchedulerMetrics
from epp_adapter.settings import (
    Settings,
    TokenizationSettings,
    listen_address,
    load_settings,
)
from epp_adapter.spans import ExchangeSpans
from epp_adapter.status_page import RecentPicks, sections
from epp_adapter.strategy_wiring import (
    Strategies,
    build_internals,
    build_strategies,
    followers,
    with_fallbacks,
)
from extproc.admin import AdminPages, Section, serve_admin
from extproc.admin_token import bearer_token
from extproc.allocator import keep_large_blocks
from extproc.huge_pages import use_huge_pages
from extproc.json_lines import log_through
from extproc.line_writer import LineWriter, LostLines
from extproc.server import Server, ServerOptions
from extproc.session import SessionOptions, StreamedDecision
from extproc.settings_file import SettingsError
from extproc.stream_metrics import StreamMetrics
from extproc.tls import tls_options
from extproc.tracing_wiring import tracing_by

_log = logging.getLogger("epp_adapter")

# What sysexits and argparse agree on: 2 is a mistake in what we were given, 1 is the world around us.
_BAD_SETTINGS: Final = 2
_CANNOT_START: Final = 1
_STDERR: Final = 2  # by number: whoever replaces sys.stderr has not replaced the log


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    config: Path = parsed.config
    try:
        settings = load_settings(config, listen=parsed.listen, admin=parsed.admin)
        if parsed.check:
            endpoints = check_endpoints_file(settings, config)
            build_internals(settings, config)
            tls_options(settings.tls, config)
            bearer_token(settings.admin_token_file, config)
            callout_tls(settings.tokenization.tls, config)
            found = "a pool" if endpoints is None else f"{endpoints} endpoints"
            print(f"{config}: ok, {len(settings.strategies)} strategies, {found}")
            return 0
        writer = LineWriter(_STDERR)
        log_through(writer, settings.log.level, service="epp_adapter")
        keep_large_blocks()
        uvloop.run(_serve(settings, config, writer))
    except SettingsError as error:
        print(f"epp-adapter: {error}", file=sys.stderr)
        return _BAD_SETTINGS
    except (CannotJoinError, CannotDiscoverError, OSError) as error:
        print(f"epp-adapter: {error}", file=sys.stderr)
        return _CANNOT_START
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="epp-adapter", description=DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve ext_proc until SIGTERM or SIGINT",
        description=SERVE,
        epilog=ENVIRONMENT,
        formatter_class=raw,
    )
    serve.add_argument("--config", type=Path, required=True, metavar="FILE", help="the settings file (YAML)")
    serve.add_argument("--listen", metavar="ADDR", help="unix:/path or host:port, in place of `listen`")
    serve.add_argument("--admin", metavar="ADDR", help="host:port of /metrics, in place of `admin`")
    serve.add_argument("--check", action="store_true", help="check settings and endpoints file, then exit")
    return parser


async def _serve(settings: Settings, config: Path, writer: LineWriter) -> None:
    registry = CollectorRegistry()
    registry.register(LostLines("epp_adapter", writer))
    metrics = Metrics(registry)
    picks = RecentPicks()
    gateway = GatewayMetrics(registry, version=version("tokenext-chain"))
    async with AsyncExitStack() as opened:
        pool = await Pool.open(settings, config, registry, metrics.reloaded, opened, scraped=gateway.scraped)
        gateway.watch_pool(
            settings.endpoints.pool.name if settings.endpoints.pool else "static",
            lambda: pool.endpoints.current().ready(),
            pool.loads or NO_LOADS,
        )
        strategies = build_strategies(settings, config, pool.loads)
        following = followers(
            strategies,
            pool.endpoints,
            SchedulerMetrics(registry),
            source=str(config),
            nats_server=os.environ.get("NATS_SERVER", "nats://127.0.0.1:4222"),
        )
        metrics.watch(lambda: len(pool.endpoints.current().ready()), strategies.bookings_active)
        async with _tokenizer(settings.tokenization, config) as tokenizer:
            tracing = opened.enter_context(
                tracing_by(
                    settings.tracing,
                    service="epp-adapter",
                    version=version("tokenext-chain"),
                    registry=registry,
                    clock=time.monotonic,
                    source=str(config),
                )
            )
            spans = [] if tracing is None else [ExchangeSpans(tracing, time.monotonic)]
            log = ExchangeLog(writer.write, settings.log)
            heard = observers(
                metrics, pool.metrics, gateway, picks, [log, *spans],
                readable=settings.admin is not None,
            )  # fmt: skip
            records = _records(settings, tokenizer, heard)
            asked = with_fallbacks(settings, strategies, metrics)
            routing = _routing(settings, pool, asked, records, heard)
            background = [*pool.background, *following]
            await _serve_routing(
                settings, config, routing, registry, strategies,
                background=background,
                synced=pool.synced,
                status=lambda: _status(pool, metrics, picks),
            )  # fmt: skip


def _status(pool: Pool, metrics: Metrics, picks: RecentPicks) -> Sequence[Section]:
    endpoints = pool.endpoints.current().endpoints
    loads = (pool.loads or NO_LOADS).loads([endpoint.address for endpoint in endpoints])
    return sections(endpoints, pool.health.is_set_aside, loads, metrics.outcomes(), picks.last())


def _tokenizer(settings: TokenizationSettings, config: Path) -> AbstractAsyncContextManager[Tokenizer | None]:
    if settings.address is None:
        return nullcontext()
    tls = callout_tls(settings.tls, config)
    return CalloutTokenizer(settings.address, deadline_seconds=settings.deadline_ms / 1e3, tls=tls)


def _records(settings: Settings, tokenizer: Tokenizer | None, heard: Observers) -> RecordFinder:
    models = settings.models
    return RecordFinder(
        namespace=settings.metadata_namespace,
        take_ids_out=settings.tokenization.take_ids_out,
        trust_body_ids=settings.tokenization.trust_body_ids,
        tokenizer=tokenizer,
        digests={name: model.tokenizer_digest for name, model in models.items() if model.tokenizer_digest},
        models=frozenset(models),
        observe=heard.looked,
    )


def _routing(
    settings: Settings,
    pool: Pool,
    strategies: Mapping[str, RoutingStrategy],
    records: RecordFinder,
    heard: Observers,
) -> Routing:
    return Routing(
        endpoints=pool.endpoints,
        strategies=strategies,
        default_strategy=settings.default_strategy,
        clock=time.monotonic,
        mint_id=partial(_random_uuid, Random()),  # noqa: S311  # it has to be unique, not secret
        observers=heard.closed,
        starters=heard.routed,
        records=records,
        strategy_of={name: model.strategy for name, model in settings.models.items() if model.strategy},
        loras=frozenset(name for name, model in settings.models.items() if model.lora),
        clear_route_cache=settings.clear_route_cache,
        health=pool.health,
        rewriting=pool.rewriting,
        destination_fallbacks=settings.destination_fallbacks,
        conformance=settings.conformance,
        max_headers=settings.max_headers,
    )


def _random_uuid(random: Random) -> str:
    """A UUID of version 4, in a fifth of the time that uuid4 takes to ask the kernel for one."""
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


async def _serve_routing(
    settings: Settings,
    config: Path,
    routing: Routing,
    registry: CollectorRegistry,
    strategies: Strategies,
    *,
    background: Sequence[Callable[[], Coroutine[Any, Any, Any]]],
    synced: Callable[[], Awaitable[None]],
    status: Callable[[], Sequence[Section]],
) -> None:
    options = ServerOptions(
        listen=settings.listen,
        session=SessionOptions(streamed_decision=StreamedDecision.AT_HEADERS),
        linger_seconds=settings.linger_seconds,
        drain_seconds=settings.drain_seconds,
        max_streams=settings.max_streams,
        tls=tls_options(settings.tls, config),
    )
    server = Server(options, lambda: EppExchange(routing))
    registry.register(StreamMetrics("epp_adapter", server))
    token = bearer_token(settings.admin_token_file, config)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(strategies.close, settings.drain_seconds)
        if settings.admin is not None:
            host, port = listen_address(settings.admin)
            pages = AdminPages(
                service="epp-adapter",
                version=version("tokenext-chain"),
                registry=registry,
                ready=lambda: server.ready,
                config=lambda: msgspec.to_builtins(settings),
                sections=status,
            )
            bound = stack.enter_context(serve_admin(host, port, pages, token))
            _log.info("metrics on %s:%d", host, bound)
        await server.start()

        async def announce() -> None:
            """Ready once the endpoints are known; until then a gateway asks the next of our replicas."""
            await synced()
            await asyncio.to_thread(use_huge_pages)
            await server.set_ready(ready=True)
            # What stands now stays: no collection needs to look at it again.
            gc.collect()
            gc.freeze()
            known = len(routing.endpoints.current().endpoints)
            _log.info("serving on %s with %d endpoints", server.address, known)

        await _run(server, [*background, announce])


async def _run(server: Server, background: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(work()) for work in background]
            await server.run_until_stopped()
            for task in running:
                task.cancel()
    except ExceptionGroup as failed:
        # An address that cannot be bound is one line for the operator, and not a traceback.
        if len(failed.exceptions) == 1 and isinstance(failed.exceptions[0], OSError):
            raise failed.exceptions[0] from None
        raise


if __name__ == "__main__":
    sys.exit(main())
