"""The shell over real gRPC on loopback: health, order, failure and drain."""

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from extproc.errors import OverloadedError, PeerProtocolError
from extproc.events import BodyMode, ResponseStarted, ResponseTrailers, Termination
from extproc.exchange import PassingExchange
from extproc.server import HEALTH_SERVICES, Server, ServerOptions
from extproc.stream_metrics import StreamMetrics
from extproc.tls import TlsOptions
from extproc.verdict import PASS, ResponseEdit, Verdict
from tests.extproc.envoy_messages import (
    header_changes,
    request_body,
    request_headers,
    response_headers,
    response_trailers,
    with_modes,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class RecordingExchange(PassingExchange):
    """Does as its script says and remembers what it was told."""

    def __init__(self, *, decide=None, edit=None, observe=None):
        self.script = (decide, edit, observe)
        self.observed = []
        self.closed = []
        self.is_closed = asyncio.Event()
        self.deciding = asyncio.Event()

    async def decide(self, request):
        self.deciding.set()
        decide = self.script[0]
        return PASS if decide is None else await decide(request)

    def edit(self, event):
        return self.script[1](event) if self.script[1] else ResponseEdit()

    async def observe(self, event):
        self.observed.append(event)
        if self.script[2]:
            self.script[2](event)

    async def close(self, termination):
        self.closed.append(termination)
        self.is_closed.set()


@asynccontextmanager
async def serving(exchange, **options):
    server = Server(ServerOptions("127.0.0.1:0", drain_seconds=0.2, **options), lambda: exchange)
    await server.start()
    await server.set_ready(ready=True)
    running = asyncio.create_task(server.run_until_stopped())
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield server, channel
    finally:
        server.stop()
        await running


def opened(channel):
    return ext_proc_grpc.ExternalProcessorStub(channel).Process()


def first(mode=BodyMode.NONE, *, end=False):
    return with_modes(request_headers({":path": "/"}, end=end), mode)


async def raising(_):
    raise RuntimeError("a bug")


def raise_now(_):
    raise RuntimeError("a bug")


async def refuse(_):
    raise OverloadedError("try again later", headers={"retry-after": "1"})


async def until_closed(exchange):
    await asyncio.wait_for(exchange.is_closed.wait(), 5)


@pytest.fixture
def certificate(tmp_path):
    """A self-signed one for 127.0.0.1, as TlsOptions takes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "picker")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("picker")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "tls.crt").write_bytes(made.public_bytes(pem))
    (tmp_path / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsOptions("127.0.0.1:0", tmp_path / "tls.crt", tmp_path / "tls.key")


class TestStreamLimit:
    async def hold(self, channel, exchange):
        """A stream that stays open."""
        stream = opened(channel)
        await stream.write(first())
        await exchange.deciding.wait()
        return stream

    async def test_over_it_a_service_that_fails_closed_answers_429_without_a_look(self):
        exchange = RecordingExchange()
        async with serving(exchange, max_streams=1) as (server, channel):
            held = await self.hold(channel, exchange)
            reply = await one_reply(opened(channel))
            assert reply.immediate_response.status.code == 429
            assert json.loads(reply.immediate_response.body)["error"]["code"] == "overloaded"
            assert server.streams_refused == 1
            registry = CollectorRegistry()
            registry.register(StreamMetrics("a_service", server))
            assert registry.get_sample_value("a_service_streams_open") >= 1
            assert registry.get_sample_value("a_service_streams_refused_total") == 1
            await held.done_writing()

    async def test_over_it_a_service_that_fails_open_lets_pass(self):
        exchange = RecordingExchange()
        async with serving(exchange, max_streams=1, fail_open=True) as (server, channel):
            held = await self.hold(channel, exchange)
            reply = await one_reply(opened(channel))
            assert reply.WhichOneof("response") == "request_headers"
            assert (header_changes(reply).set, header_changes(reply).removed) == ({}, [])
            assert server.streams_refused == 1
            await held.done_writing()

    async def test_a_stream_that_ends_makes_room(self):
        exchange = RecordingExchange()
        async with serving(exchange, max_streams=1) as (server, channel):
            held = await self.hold(channel, exchange)
            await held.done_writing()
            async with asyncio.timeout(5):
                await exchange.is_closed.wait()
            reply = await one_reply(opened(channel))
            assert reply.WhichOneof("response") == "request_headers"
            assert server.streams_refused == 0


async def one_reply(stream):
    await stream.write(first())
    reply = await stream.read()
    await stream.done_writing()
    return reply


async def test_with_a_certificate_the_same_service_is_served_over_tls_beside_the_plain_one(certificate):
    async with serving(PassingExchange(), tls=certificate) as (server, plain):
        credentials = grpc.ssl_channel_credentials(certificate.certificate.read_bytes())
        named = [("grpc.ssl_target_name_override", "picker")]
        async with grpc.aio.secure_channel(server.tls_address, credentials, named) as secure:
            for channel in (plain, secure):
                reply = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service="readiness")
                )
                assert reply.status == SERVING
            call = opened(secure)
            await call.write(first(end=True))
            assert (await call.read()).HasField("request_headers")
            await call.done_writing()


@pytest.mark.parametrize("file", ["tls.crt", "tls.key"])
async def test_a_certificate_that_cannot_be_used_keeps_the_server_from_starting(certificate, file, tmp_path):
    (tmp_path / file).write_text("not a certificate")
    server = Server(ServerOptions("127.0.0.1:0", tls=certificate), PassingExchange)
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:0 with .*tls\.crt"):
        await server.start()


async def test_a_certificate_that_is_not_there_is_named(certificate, tmp_path):
    (tmp_path / "tls.key").unlink()
    server = Server(ServerOptions("127.0.0.1:0", tls=certificate), PassingExchange)
    with pytest.raises(FileNotFoundError, match=r"tls\.key"):
        await server.start()


async def test_health_tells_liveness_from_readiness():
    async with serving(PassingExchange()) as (server, channel):
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(service):
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

        assert [await status(service) for service in HEALTH_SERVICES] == [SERVING] * 5
        await server.set_ready(ready=False)
        assert await status("liveness") == SERVING
        assert [await status(name) for name in HEALTH_SERVICES if name != "liveness"] == [NOT_SERVING] * 4


async def test_further_services_are_served_beside_ext_proc_and_have_a_health_of_their_own():
    added = []
    server = Server(ServerOptions("127.0.0.1:0"), PassingExchange, services={"a.v1.Service": added.append})
    await server.start()
    await server.set_ready(ready=True)
    running = asyncio.create_task(server.run_until_stopped())
    async with grpc.aio.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service="a.v1.Service")
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
    server.stop()
    await running
    assert answer.status == SERVING
    assert len(added) == 1


async def test_a_request_is_decided_and_its_stream_ends_once():
    async def decide(request):
        return Verdict(set_headers={"x-length": str(len(request.body))})

    exchange = RecordingExchange(decide=decide)
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first(BodyMode.BUFFERED))
        assert (await call.read()).WhichOneof("response") == "request_headers"
        await call.write(request_body(b"abc", end=True))
        assert header_changes(await call.read()).set == {"x-length": "3"}
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
        await until_closed(exchange)
    assert exchange.closed == [Termination.ENDED]


async def test_the_response_is_acknowledged_then_observed():
    exchange = RecordingExchange(edit=lambda _: ResponseEdit(set_headers={"x-a": "1"}))
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        for message, answer in (
            (first(end=True), "request_headers"),
            (response_headers(), "response_headers"),
            (response_trailers(), "response_trailers"),
        ):
            await call.write(message)
            assert (await call.read()).WhichOneof("response") == answer
        await call.done_writing()
        await until_closed(exchange)
    assert [type(event) for event in exchange.observed] == [ResponseStarted, ResponseTrailers]


async def test_a_refusal_answers_the_client_and_closes_as_rejected():
    exchange = RecordingExchange(decide=refuse)
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first())
        answer = (await call.read()).immediate_response
        assert answer.status.code == 429
        assert json.loads(answer.body)["error"]["code"] == "overloaded"
        await call.write(response_headers())  # late: ignored
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
        await until_closed(exchange)
    assert exchange.closed == [Termination.REJECTED]


@pytest.mark.parametrize(("fail_open", "answer"), [(True, "request_headers"), (False, "immediate_response")])
async def test_a_crash_passes_or_answers_500_as_configured(fail_open, answer, caplog):
    exchange = RecordingExchange(decide=raising)
    async with serving(exchange, fail_open=fail_open) as (_, channel):
        call = opened(channel)
        await call.write(first())
        assert (await call.read()).WhichOneof("response") == answer
    assert "an exchange failed to decide" in caplog.text


async def test_a_crash_on_the_response_side_never_holds_the_response_up(caplog):
    exchange = RecordingExchange(edit=raise_now, observe=raise_now)
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first(end=True))
        await call.read()
        await call.write(response_headers())
        assert (await call.read()).WhichOneof("response") == "response_headers"
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
    assert "failed to edit" in caplog.text
    assert "failed to observe" in caplog.text


async def test_a_client_that_goes_away_while_we_decide_closes_the_exchange_once():
    async def forever(_):
        await asyncio.sleep(3600)

    exchange = RecordingExchange(decide=forever)
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first())
        await exchange.deciding.wait()
        call.cancel()
        await until_closed(exchange)
    assert exchange.closed == [Termination.CANCELLED]


async def test_a_client_that_goes_away_between_messages_ends_the_exchange():
    exchange = RecordingExchange()
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first(BodyMode.BUFFERED))
        await call.read()
        await asyncio.sleep(0.1)  # we have the reply before the server knows that it is written
        call.cancel()
        await until_closed(exchange)
    assert exchange.closed == [Termination.ENDED]


async def test_a_client_that_goes_away_after_a_refusal_still_counts_as_refused():
    exchange = RecordingExchange(decide=refuse)
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(first())
        await call.read()
        call.cancel()
        await until_closed(exchange)
    assert exchange.closed == [Termination.REJECTED]


async def test_a_mode_we_do_not_serve_ends_the_stream_naming_the_setting(caplog):
    exchange = RecordingExchange()
    async with serving(exchange) as (_, channel):
        call = opened(channel)
        await call.write(with_modes(request_headers(), "GRPC"))
        assert await call.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "request_body_mode" in await call.details()
        await until_closed(exchange)
    assert exchange.closed == [Termination.FAILED]


async def test_messages_larger_than_grpcs_default_pass():
    async def decide(request):
        return Verdict(body=request.body)

    async with serving(RecordingExchange(decide=decide)) as (server, _):
        limit = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(server.address, options=limit) as channel:
            call = opened(channel)
            await call.write(first(BodyMode.BUFFERED))
            await call.read()
            body = b"x" * 10_000_000
            await call.write(request_body(body, end=True))
            assert (await call.read()).request_body.response.body_mutation.body == body


async def test_draining_lets_an_open_stream_finish():
    exchange = RecordingExchange()
    async with serving(exchange) as (server, channel):
        call = opened(channel)
        await call.write(first(BodyMode.BUFFERED))
        await call.read()
        server.stop()
        await call.write(request_body(b"abc", end=True))
        assert (await call.read()).WhichOneof("response") == "request_body"
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_draining_cancels_what_outlives_the_grace():
    exchange = RecordingExchange()
    async with serving(exchange) as (server, channel):
        call = opened(channel)
        await call.write(first(BodyMode.BUFFERED))
        await call.read()
        server.stop()
        await until_closed(exchange)
    assert exchange.closed == [Termination.ENDED]


async def test_a_server_that_lingers_takes_new_streams_and_says_that_it_is_not_ready():
    exchange = RecordingExchange()
    async with serving(exchange, linger_seconds=0.5) as (server, channel):
        server.stop()
        await asyncio.sleep(0.1)
        request = health_pb2.HealthCheckRequest(service="readiness")
        assert (await health_pb2_grpc.HealthStub(channel).Check(request)).status == NOT_SERVING
        call = opened(channel)
        await call.write(first(BodyMode.BUFFERED))
        await call.read()
        await call.write(request_body(b"abc", end=True))
        assert (await call.read()).WhichOneof("response") == "request_body"
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


async def test_a_server_that_has_lingered_takes_none():
    async with serving(RecordingExchange(), linger_seconds=0.2) as (server, channel):
        server.stop()
        await asyncio.sleep(0.6)
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())


async def test_a_sigterm_right_after_the_start_drains_and_ends():
    server = Server(ServerOptions("127.0.0.1:0", drain_seconds=0.1), PassingExchange)
    await server.start()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(server.run_until_stopped(), 5)


async def test_an_address_in_use_is_an_os_error_that_names_it():
    async with serving(PassingExchange()) as (server, _):
        second = Server(ServerOptions(server.address), PassingExchange)
        with pytest.raises(OSError, match=server.address):
            await second.start()


async def test_a_unix_socket_is_served(tmp_path):
    server = Server(ServerOptions(f"unix:{tmp_path}/s.sock", drain_seconds=0.1), PassingExchange)
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = opened(channel)
        await call.write(first())
        assert (await call.read()).WhichOneof("response") == "request_headers"
        await call.done_writing()
    server.stop()
    await server.run_until_stopped()


async def test_an_exchange_that_cannot_work_in_this_mode_ends_the_stream_with_its_reason():
    async def decide(_):
        raise PeerProtocolError("set processing_mode.request_body_mode to BUFFERED")

    exchange = RecordingExchange(decide=decide)
    async with serving(exchange, fail_open=True) as (_, channel):
        call = opened(channel)
        await call.write(first())
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "request_body_mode" in await call.details()
        await until_closed(exchange)
    assert exchange.closed == [Termination.FAILED]
