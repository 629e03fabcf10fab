"""The grpc.aio shell: the server's IO. One process serves one endpoint (docs/adr/0002).

The loop of a stream is `ExternalProcessor.process`: read, feed the session, write its replies, ask the
exchange, write those replies. Everything that can go wrong ends in `close`, which runs exactly once.
"""

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # grpc-stubs lacks it

from extproc.errors import ChainError, InternalError, OverloadedError, PeerProtocolError
from extproc.events import RequestReady, ResponseEvent, Termination
from extproc.exchange import Exchange, PassingExchange, RefusingExchange
from extproc.session import Replies, Session, SessionOptions
from extproc.tls import Certificates, TlsOptions
from extproc.verdict import NO_EDIT, PASS
from extproc.wellknown import MAX_MESSAGE_BYTES

__all__ = ["HEALTH_SERVICES", "ExternalProcessor", "Register", "Server", "ServerOptions"]

_log = logging.getLogger(__name__)
_END: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

EXT_PROC_SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
# What probes ask for: the names of the reference Endpoint Picker (llm-d-router, cmd/epp/runner/health.go).
_LIVENESS: Final = "liveness"
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_READINESS_SERVICES: Final = ("readiness", EXT_PROC_SERVICE, "inference-extension", "")
HEALTH_SERVICES: Final = (_LIVENESS, *_READINESS_SERVICES)

# Adds one more gRPC service to a server that has not started (`add_XServicer_to_server`).
Register = Callable[[Any], None]

# A stream lives as long as its response, and takes some 20 KB: minutes of a busy gateway's requests.
DEFAULT_MAX_STREAMS: Final = 16_384


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`listen` is "unix:/path" or "host:port" (port 0: any free one, see `Server.address`).

    `fail_open`: what a crash of an exchange means for its request. True lets it pass unchanged, False answers
    500. `linger_seconds`: how long after SIGTERM new streams are still served, while health says not ready,
    so that gateways go elsewhere before any is refused. `drain_seconds`: how long after that open streams may
    still run. `tls` is served beside `listen`,
    which stays as it is: probes cannot speak TLS. Of streams over `max_streams` nothing is looked at: their
    requests pass where we fail open, and are answered 429 otherwise.
    """

    listen: str
    session: SessionOptions = field(default_factory=SessionOptions)
    fail_open: bool = False
    linger_seconds: float = 0.0
    drain_seconds: float = 30.0
    max_message_bytes: int = MAX_MESSAGE_BYTES
    tls: TlsOptions | None = None
    max_streams: int = DEFAULT_MAX_STREAMS


class ExternalProcessor:
    """Serves ext_proc streams: one Session and one Exchange each."""

    def __init__(
        self,
        open_exchange: Callable[[], Exchange],
        options: SessionOptions,
        *,
        fail_open: bool,
        max_streams: int = DEFAULT_MAX_STREAMS,
    ) -> None:
        self._open_exchange = open_exchange
        self._options = options
        self._fail_open = fail_open
        self._max_streams = max_streams
        self.streams_open = 0
        self.streams_refused = 0

    def _open(self) -> Exchange:
        if self.streams_open < self._max_streams:
            return self._open_exchange()
        self.streams_refused += 1
        if self._fail_open:
            return PassingExchange()
        return RefusingExchange(OverloadedError("the endpoint picker has too many open streams"))

    async def process(self, _: Any, context: Any) -> None:
        """One stream, from Envoy's first message to its end."""
        session = Session(self._options)
        exchange = self._open()
        self.streams_open += 1
        waiting = termination = Termination.ENDED
        try:
            # Between messages gRPC reports a reset as their end or as a cancellation, by chance:
            # both are ENDED.
            while (message := await context.read()) is not _END:
                termination = Termination.CANCELLED
                step = session.receive(message)
                await _write(context, step.replies)
                if isinstance(step.event, RequestReady):
                    replies, rejected = await self._decide(session, exchange, step.event)
                    if rejected:
                        # Before it is written: a client that has its answer may leave while we still write.
                        waiting = termination = Termination.REJECTED
                    await _write(context, replies)
                elif step.event is not None:
                    await self._answer(context, session, exchange, step.event)
                termination = waiting
        except PeerProtocolError as error:
            termination = Termination.FAILED
            _log.warning("stream ended: %s", error)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            self.streams_open -= 1
            await asyncio.shield(exchange.close(termination))

    async def _decide(
        self, session: Session, exchange: Exchange, request: RequestReady
    ) -> tuple[Replies, bool]:
        try:
            return session.release(await exchange.decide(request)), False
        except ChainError as error:
            return session.reject(error), True
        except PeerProtocolError:
            raise
        except Exception:  # a bug of ours must not become the client's
            _log.exception("an exchange failed to decide a request")
            if self._fail_open:
                return session.release(PASS), False
            return session.reject(InternalError("the endpoint picker failed on this request")), True

    async def _answer(self, context: Any, session: Session, exchange: Exchange, event: ResponseEvent) -> None:
        try:
            edit = exchange.edit(event)
        except Exception:  # as above: the response passes as it is
            _log.exception("an exchange failed to edit a response")
            edit = NO_EDIT
        await _write(context, session.acknowledge(edit))
        try:
            await exchange.observe(event)
        except Exception:
            _log.exception("an exchange failed to observe a response")


async def _write(context: Any, replies: Replies) -> None:
    for reply in replies:
        await context.write(reply)


class Server:
    """A gRPC server with the ext_proc service and gRPC health, and its life from start to drain.

    `services` are served beside it, by their full names; health answers for them as it does for ext_proc.
    """

    def __init__(
        self,
        options: ServerOptions,
        open_exchange: Callable[[], Exchange],
        services: Mapping[str, Register] | None = None,
    ) -> None:
        self._options = options
        self._services = dict(services or {})
        limit = options.max_message_bytes
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                ("grpc.so_reuseport", 0),  # a second process on one port must fail, not go idle
            ]
        )
        self._health = health_aio.HealthServicer()
        self._processor = ExternalProcessor(
            open_exchange, options.session, fail_open=options.fail_open, max_streams=options.max_streams
        )
        self._stopping = asyncio.Event()
        self._ready = False
        self.address = options.listen
        self.tls_address: str | None = None

    @property
    def ready(self) -> bool:
        """What health answers."""
        return self._ready

    @property
    def streams_open(self) -> int:
        return self._processor.streams_open

    @property
    def streams_refused(self) -> int:
        """Since the start, over `max_streams`."""
        return self._processor.streams_refused

    async def start(self) -> None:
        """Bind and serve; liveness is on, readiness is off. From here on SIGTERM and SIGINT drain.

        Raises OSError if an address is taken, or a certificate cannot be read or used.
        """
        _register(self._server, self._processor)
        for register in self._services.values():
            register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(_LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(ready=False)
        try:
            port = self._server.add_insecure_port(self._options.listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._options.listen}") from error
        if not self._options.listen.startswith("unix:"):
            self.address = f"{self._options.listen.rpartition(':')[0]}:{port}"
        if self._options.tls is not None:
            self.tls_address = self._listen_tls(self._options.tls)
        # Before anybody can see that we serve: who sees it may stop us.
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)
        await self._server.start()

    def _listen_tls(self, tls: TlsOptions) -> str:
        try:
            port = self._server.add_secure_port(tls.listen, Certificates(tls).credentials())
        except (RuntimeError, ssl.SSLError) as error:
            raise OSError(f"cannot listen on {tls.listen} with {tls.certificate}") from error
        return f"{tls.listen.rpartition(':')[0]}:{port}"

    async def set_ready(self, *, ready: bool) -> None:
        self._ready = ready
        status = (
            health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for service in (*_READINESS_SERVICES, *self._services):
            await self._health.set(service, status)

    def stop(self) -> None:
        """Ask `run_until_stopped` to drain and return. May be called more than once."""
        self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop()`; then linger, not ready; then drain: open streams end.

        Streams that are still open after `drain_seconds` are cancelled.
        """
        loop = asyncio.get_running_loop()
        try:
            await self._stopping.wait()
            await self.set_ready(ready=False)
            await asyncio.sleep(self._options.linger_seconds)
        finally:
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)
            await self.set_ready(ready=False)
            await self._server.stop(self._options.drain_seconds)


def _register(server: grpc.aio.Server, processor: ExternalProcessor) -> None:
    servicer = ext_proc_grpc.ExternalProcessorServicer()
    servicer.Process = processor.process
    ext_proc_grpc.add_ExternalProcessorServicer_to_server(servicer, server)
