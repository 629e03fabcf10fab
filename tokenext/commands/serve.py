"""`tokenext serve`: reads the settings, wires everything, runs until told to stop."""

import argparse
import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from extproc.admin import AdminPages, serve_admin
from extproc.admin_token import BearerToken, bearer_token
from extproc.allocator import keep_large_blocks, return_freed_memory
from extproc.huge_pages import use_huge_pages
from extproc.json_lines import log_through
from extproc.line_writer import LineWriter, LostLines
from extproc.server import Server, ServerOptions
from extproc.session import SessionOptions, StreamedDecision
from extproc.settings_file import SettingsError
from extproc.stream_metrics import StreamMetrics
from extproc.tls import TlsOptions, tls_options
from extproc.tracing import Tracing
from extproc.tracing_wiring import tracing_by
from tokenext import settings as settings_module
from tokenext import status_page, tokenize_service
from tokenext.breaker import BreakerOptions, Breakers
from tokenext.callout import Callout
from tokenext.catalog import Catalog
from tokenext.commands.addresses import add_addresses, overridden
from tokenext.commands.command import OK, CommandError, Commands, add_command, now
from tokenext.commands.http_port import http_port
from tokenext.commands.processes import stop_with_parent, supervise
from tokenext.commands.reloading import reload_on_hangup
from tokenext.commands.serve_help import DESCRIPTION, NOTES
from tokenext.conversations import Conversations
from tokenext.exchange import ExchangeOptions, TokenizeExchange
from tokenext.json_log import JsonLog
from tokenext.live_catalog import LiveCatalog
from tokenext.loading import load_catalog
from tokenext.metrics import PrometheusObserver
from tokenext.observers import Observers
from tokenext.oracle import Oracle
from tokenext.oracles.opening import open_oracle
from tokenext.parity import Verification
from tokenext.parity_watch import ParityWatch
from tokenext.pool import TokenizationPool
from tokenext.prefix_tree import PrefixTree
from tokenext.render_api.service import RenderApi
from tokenext.settings import BreakerSettings, Settings
from tokenext.spans import ExchangeSpans

__all__ = ["add"]

_CHECK_FAILED: Final = 1
_STDOUT: Final = 1  # by number: whoever replaces sys.stdout has not replaced the log
MAX_PROCESSES: Final = 256


def add(commands: Commands) -> None:
    """Declare the subcommand."""
    parser = add_command(
        commands,
        "serve",
        says="serve ext_proc for the models of a settings file",
        description=DESCRIPTION,
        notes=NOTES,
        run=_run,
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the settings file (YAML)")
    add_addresses(parser)
    parser.add_argument(
        "--processes",
        type=_count,
        default=1,
        metavar="N",
        help="run N processes, each on an address of its own: unix:/run/t.sock becomes /run/t-0.sock and "
        "t-1.sock, a port the ones after it, for all addresses alike; list all in Envoy's cluster",
    )
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="load everything, say what was loaded, and exit")


def _run(options: argparse.Namespace) -> int:
    if not options.check:
        keep_large_blocks()
    try:
        settings = overridden(settings_module.load(options.config), options)
        tls = tls_options(settings.tls, options.config)
        token = bearer_token(settings.admin_token_file, options.config)
        budget = settings.prefix_cache.budget_bytes
        tree = PrefixTree(budget) if budget else None
        load = partial(_load, options.config, tree)
        catalog = load_catalog(settings, source=str(options.config), now=now, prefix_tree=tree)
    except SettingsError as error:
        if options.check:
            raise CommandError(str(error), _CHECK_FAILED) from None
        raise
    if options.check:
        _tell(catalog)
        return OK
    if options.processes > 1:
        log = JsonLog(LineWriter(_STDOUT).write, settings.log)
        del catalog  # it was loaded to say at once what is wrong; every process loads its own
        status: int = uvloop.run(supervise(options.config, settings, options.processes, log))
        return status
    registry = CollectorRegistry()
    with _tracing(settings, options.config, registry) as tracing:
        uvloop.run(
            _serve(
                settings,
                catalog,
                load,
                tree,
                tls=tls,
                admin_token=token,
                registry=registry,
                tracing=tracing,
                supervised=options.supervised,
            )
        )
    return OK


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {MAX_PROCESSES}")
    return number


def _load(config: Path, tree: PrefixTree | None) -> Catalog:
    return load_catalog(settings_module.load(config), source=str(config), now=now, prefix_tree=tree)


def _tracing(
    settings: Settings, config: Path, registry: CollectorRegistry
) -> AbstractContextManager[Tracing | None]:
    return tracing_by(
        settings.tracing,
        service="tokenext",
        version=version("tokenext-chain"),
        registry=registry,
        clock=time.perf_counter,
        source=str(config),
    )


def _tell(catalog: Catalog) -> None:
    for model in catalog.models:
        names = ", ".join((model.name, *model.aliases))
        print(f"{names}: {model.engine.name}, {model.engine_reason}")
        print(f"  hand-off {model.handoff}, {model.digest}")
        print(f"  prefix cache {model.prefix_cache}")


async def _serve(
    settings: Settings,
    catalog: Catalog,
    load: partial[Catalog],
    tree: PrefixTree | None,
    *,
    tls: TlsOptions | None,
    admin_token: BearerToken | None,
    registry: CollectorRegistry,
    tracing: Tracing | None,
    supervised: bool,
) -> None:
    limits = settings.limits
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    metrics = PrometheusObserver(registry)
    writer = LineWriter(_STDOUT)
    registry.register(LostLines("tokenext", writer))
    log_through(writer, settings.log.level, service="tokenext")
    log = JsonLog(writer.write, settings.log)
    spans = None if tracing is None else ExchangeSpans(tracing, time.perf_counter)
    observers = Observers(metrics, log, spans, readable=settings.admin is not None)
    breakers = Breakers(_breaker_options(settings.breaker), observers.breaker_changed)
    live = LiveCatalog(catalog, load, observers)
    metrics.show_models(catalog)
    log.models(catalog)
    pool = TokenizationPool(
        workers=limits.workers,
        max_queued=limits.max_queued,
        deadline_seconds=limits.deadline_ms / 1000,
        max_inline_bytes=limits.max_inline_bytes,
    )
    metrics.watch_queue(lambda: pool.held)
    if tree is not None:
        metrics.watch_prefix_cache(tree.snapshot)
    budget = settings.conversations.budget_bytes
    conversations = Conversations(budget) if budget else None
    # Models stay; a full collection need not look through them while a request waits.
    gc.collect()
    return_freed_memory(settings.prefix_cache.budget_bytes + budget)
    gc.freeze()
    if conversations is not None:
        metrics.watch_conversations(conversations.snapshot)
    exchange_options = ExchangeOptions(settings.metadata_namespace, limits.on_oversize, limits.max_headers)
    callout = Callout(
        catalog=live.current,
        pool=pool,
        observer=observers,
        clock=time.perf_counter,
        max_body_bytes=limits.max_body_bytes,
        conversations=conversations,
        breakers=breakers,
    )
    render = RenderApi(catalog=live.current, pool=pool, callout=callout, conversations=conversations)
    server = Server(
        ServerOptions(
            listen=settings.listen,
            session=SessionOptions(
                max_body_bytes=limits.max_body_bytes, streamed_decision=StreamedDecision.AT_END
            ),
            fail_open=True,
            linger_seconds=limits.linger_seconds,
            drain_seconds=limits.drain_seconds,
            max_streams=limits.max_streams,
            tls=tls,
        ),
        lambda: TokenizeExchange(
            catalog=live.current,
            pool=pool,
            observer=observers,
            options=exchange_options,
            clock=time.perf_counter,
            conversations=conversations,
            breakers=breakers,
        ),
        services={tokenize_service.SERVICE: partial(tokenize_service.register, callout)},
    )
    registry.register(StreamMetrics("tokenext", server))
    pages = AdminPages(
        service="tokenext",
        version=version("tokenext-chain"),
        registry=registry,
        ready=lambda: server.ready,
        config=lambda: msgspec.to_builtins(settings),
        sections=lambda: status_page.sections(
            live.current(),
            breakers,
            metrics.outcomes(),
            tree.snapshot() if tree else None,
            conversations.snapshot() if conversations else None,
        ),
    )
    with closing(pool), _admin(settings.admin, pages, admin_token):
        # Engines are asked before the first request is served: no wrong ids are handed over meanwhile.
        async with ParityWatch(live, _open_oracle, observers) as watch:
            with reload_on_hangup(live, watch, breakers):
                try:
                    await server.start()
                except OSError as error:
                    raise SettingsError("listen", str(error)) from None
                if supervised:
                    stop_with_parent(server)
                async with http_port(
                    settings, render, registry, version=version("tokenext-chain"), ready=lambda: server.ready,
                    busy=lambda: pool.full,
                ):  # fmt: skip
                    await asyncio.to_thread(use_huge_pages)
                    log.serving(server.address, server.tls_address)
                    await server.set_ready(ready=True)
                    await server.run_until_stopped()
    log.stopped()


def _breaker_options(chosen: BreakerSettings) -> BreakerOptions:
    return BreakerOptions(chosen.failures, chosen.open_ms / 1e3, chosen.max_open_ms / 1e3)


def _open_oracle(asked: Verification) -> AbstractAsyncContextManager[Oracle]:
    return open_oracle(asked.kind, asked.engine)


@contextmanager
def _admin(address: str | None, pages: AdminPages, token: BearerToken | None) -> Iterator[None]:
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    with ExitStack() as opened:
        try:
            opened.enter_context(serve_admin(host, int(port), pages, token))
        except OSError as error:
            raise SettingsError("admin", f"cannot listen on {address}: {error.strerror}") from None
        yield
