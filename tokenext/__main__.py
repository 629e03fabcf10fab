"""`tokenext serve`: reads the settings, wires everything, runs until told to stop."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server

from extproc.server import Server, ServerOptions
from extproc.session import SessionOptions, StreamedDecision
from extproc.settings_file import SettingsError
from tokenext import settings as settings_module
from tokenext.catalog import Catalog
from tokenext.exchange import ExchangeOptions, TokenizeExchange
from tokenext.json_log import JsonLog
from tokenext.live_catalog import LiveCatalog
from tokenext.loading import load_catalog
from tokenext.metrics import PrometheusObserver
from tokenext.observer import ExchangeRecord
from tokenext.pool import TokenizationPool
from tokenext.settings import Settings

_OK: Final = 0
_CHECK_FAILED: Final = 1
_UNUSABLE: Final = 2

_DESCRIPTION: Final = """\
tokenext renders and tokenizes OpenAI requests once, in front of the Endpoint Picker.

Envoy calls it as an ext_proc filter. It attaches the token ids to the request as dynamic metadata, and, for
models with a hand-off, puts them into the body, so that the model server need not tokenize again. Whatever it
cannot tokenize passes through unchanged.
"""

_SERVE: Final = """\
Serve ext_proc for the models of a settings file. A small one:

  listen: 127.0.0.1:9000            # or unix:/run/tokenext.sock
  admin: 127.0.0.1:9090             # Prometheus /metrics
  models:
  - name: qwen3                     # what clients put into "model"
    aliases: [Qwen/Qwen3-8B]
    source: /models/qwen3           # a directory with tokenizer.json, or a hub id: org/name[@revision]
    handoff: dynamo                 # give the ids to NVIDIA Dynamo workers; none: only route by them
"""

_SERVE_NOTES: Final = """\
signals:
  SIGHUP           load the models again; a bad file leaves everything as it is (see the log)
  SIGTERM, SIGINT  stop taking streams, let open ones end, exit

exit status: 0 stopped or checked, 1 --check found a problem, 2 the settings cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="tokenext", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve ext_proc for the models of a settings file",
        description=_SERVE,
        epilog=_SERVE_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--config", required=True, type=Path, metavar="FILE", help="the settings file (YAML)")
    serve.add_argument("--listen", metavar="ADDR", help="serve here instead: unix:/path or host:port")
    serve.add_argument("--admin", metavar="ADDR", help="serve /metrics here instead: host:port")
    serve.add_argument("--check", action="store_true", help="load everything, say what was loaded, and exit")
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options.config, options.listen, options.admin)
        load = partial(_load, options.config)
        catalog = load_catalog(settings, source=str(options.config), now=_now)
        if options.check:
            _tell(catalog)
            return _OK
        uvloop.run(_serve(settings, catalog, load))
    except SettingsError as error:
        print(f"tokenext: {error}", file=sys.stderr)
        return _CHECK_FAILED if options.check else _UNUSABLE
    return _OK


def _now() -> datetime:
    return datetime.now(UTC)


def _settings(config: Path, listen: str | None, admin: str | None) -> Settings:
    settings = settings_module.load(config)
    if listen is not None:
        settings_module.check_address(listen, source="--listen", key=listen, unix=True)
        settings = msgspec.structs.replace(settings, listen=listen)
    if admin is not None:
        settings_module.check_address(admin, source="--admin", key=admin, unix=False)
        settings = msgspec.structs.replace(settings, admin=admin)
    return settings


def _load(config: Path) -> Catalog:
    return load_catalog(settings_module.load(config), source=str(config), now=_now)


def _tell(catalog: Catalog) -> None:
    for model in catalog.models:
        names = ", ".join((model.name, *model.aliases))
        print(f"{names}: {model.engine.name}, {model.engine_reason}")
        print(f"  hand-off {model.handoff}, {model.digest}")


class _Observers:
    """Hands every fact to the metrics and to the log."""

    def __init__(self, metrics: PrometheusObserver, log: JsonLog) -> None:
        self._all = (metrics, log)

    def exchanged(self, record: ExchangeRecord) -> None:
        for observer in self._all:
            observer.exchanged(record)

    def reloaded(self, catalog: Catalog) -> None:
        for observer in self._all:
            observer.reloaded(catalog)

    def reload_failed(self, problem: str) -> None:
        for observer in self._all:
            observer.reload_failed(problem)


async def _serve(settings: Settings, catalog: Catalog, load: partial[Catalog]) -> None:
    limits = settings.limits
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    metrics = PrometheusObserver(registry)
    log = JsonLog(_write_line, exchanges=settings.exchange_log)
    observers = _Observers(metrics, log)
    live = LiveCatalog(catalog, load, observers)
    metrics.show_models(catalog)
    log.models(catalog)
    pool = TokenizationPool(
        workers=limits.workers,
        max_queued=limits.max_queued,
        deadline_seconds=limits.deadline_ms / 1000,
    )
    metrics.watch_queue(lambda: pool.held)
    exchange_options = ExchangeOptions(settings.metadata_namespace, limits.on_oversize)
    server = Server(
        ServerOptions(
            listen=settings.listen,
            session=SessionOptions(
                max_body_bytes=limits.max_body_bytes, streamed_decision=StreamedDecision.AT_END
            ),
            fail_open=True,
            drain_seconds=limits.drain_seconds,
        ),
        lambda: TokenizeExchange(
            catalog=live.current,
            pool=pool,
            observer=observers,
            options=exchange_options,
            clock=time.perf_counter,
        ),
    )
    with closing(pool), _metrics_server(settings.admin, registry), _reload_on_hangup(live):
        try:
            await server.start()
        except OSError as error:
            raise SettingsError("listen", str(error)) from None
        log.serving(server.address)
        await server.set_ready(ready=True)
        await server.run_until_stopped()
    log.stopped()


def _write_line(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


@contextmanager
def _metrics_server(address: str | None, registry: CollectorRegistry) -> Iterator[None]:
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise SettingsError("admin", f"cannot listen on {address}: {error.strerror}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _reload_on_hangup(live: LiveCatalog) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(live.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


if __name__ == "__main__":
    sys.exit(main())
