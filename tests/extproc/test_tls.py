"""TLS of a server: renewed without a restart; closed to clients without a certificate, where asked."""

import asyncio
import ssl
import warnings
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.exchange import PassingExchange
from extproc.server import Server, ServerOptions
from extproc.settings_file import SettingsError
from extproc.tls import TlsOptions, TlsSettings, tls_options
from tests.extproc.certificates import NAME, Files, Issued


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@asynccontextmanager
async def serving(options):
    server = Server(ServerOptions("127.0.0.1:0", drain_seconds=0.1, tls=options), PassingExchange)
    await server.start()
    try:
        yield server.tls_address
    finally:
        server.stop()
        await server.run_until_stopped()


async def answers(address, trusted, client=None) -> bool:
    """Whether a new connection that trusts this certificate gets an answer."""
    pair = (None, None) if client is None else (client.private, client.certificate)
    credentials = grpc.ssl_channel_credentials(trusted.certificate, *pair)
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="liveness"), timeout=3
            )
        except grpc.aio.AioRpcError:
            return False
        return True


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(files):
    old, new = Issued(), Issued()
    files.write(old)
    async with serving(files.options()) as address:
        assert await answers(address, old)
        files.write(new)
        assert await answers(address, new)
        assert not await answers(address, old)


@pytest.mark.parametrize("broken", ["a key that does not fit", "no certificate at all", "no file"])
async def test_files_that_cannot_be_used_leave_the_old_ones(files, caplog, broken):
    old, new = Issued(), Issued()
    files.write(old)
    async with serving(files.options()) as address:
        if broken == "no file":
            (files.folder / "tls.key").unlink()
        elif broken == "no certificate at all":
            new.certificate = b"half of"
            files.write(new)
        else:
            files.write(new, key=Issued().private)
        assert await answers(address, old)
        assert "the one before it stays" in caplog.text
        files.write(fresh := Issued())
        assert await answers(address, fresh)


async def test_with_a_client_ca_only_clients_it_has_signed_may_call(files):
    server, authority = Issued(), Issued()
    files.write(server)
    async with serving(files.options(client_ca=authority)) as address:
        assert await answers(address, server, Issued(authority))
        assert not await answers(address, server, Issued(Issued()))
        assert not await answers(address, server)


async def test_a_pair_that_does_not_fit_is_refused_at_the_start(files):
    files.write(Issued(), key=Issued().private)
    server = Server(ServerOptions("127.0.0.1:0", tls=files.options()), PassingExchange)
    with pytest.raises(OSError, match=r"cannot listen on .* with .*tls\.crt"):
        await server.start()


def of_versions(context, versions) -> ssl.SSLContext:
    """The context, for these versions only: also those that OpenSSL by itself holds too old."""
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version, context.maximum_version = versions
    return context


async def handshake(address, version) -> str | None:
    """The version that a client ends up with which offers nothing newer than this one; None: refused."""
    context = of_versions(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), (ssl.TLSVersion.TLSv1, version))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except ConnectionResetError:
        return None
    try:
        return writer.get_extra_info("ssl_object").version()
    finally:
        writer.close()


@asynccontextmanager
async def taking_any_version(files):
    """The address of a server that does not mind."""
    context = of_versions(
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_3)
    )
    context.load_cert_chain(files.folder / "tls.crt", files.folder / "tls.key")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_is_older_than_tls_1_2_is_refused(files):
    files.write(Issued())
    async with serving(files.options()) as address, taking_any_version(files) as lenient:
        for version, name in ((ssl.TLSVersion.TLSv1, "TLSv1"), (ssl.TLSVersion.TLSv1_1, "TLSv1.1")):
            assert await handshake(lenient, version) == name  # it is not the client that cannot
            assert await handshake(address, version) is None
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            assert await handshake(address, version) == name


def test_paths_in_settings_are_relative_to_their_file(files):
    files.write(Issued())
    settings = TlsSettings("127.0.0.1:0", "tls.crt", str(files.folder / "tls.key"))
    assert tls_options(settings, files.folder / "t.yaml") == TlsOptions(
        "127.0.0.1:0", files.folder / "tls.crt", files.folder / "tls.key"
    )


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_is_missing_is_named_with_the_key(files, missing):
    files.write(Issued())
    files.options(client_ca=Issued())
    (files.folder / missing).unlink()
    settings = TlsSettings("127.0.0.1:0", "tls.crt", "tls.key", "ca.crt")
    with pytest.raises(SettingsError, match=rf"t\.yaml: tls: the files cannot be used: .*{missing}"):
        tls_options(settings, files.folder / "t.yaml")


def test_a_client_ca_that_is_none_is_refused_at_the_start(files):
    files.write(Issued())
    (files.folder / "ca.crt").write_text("none")
    settings = TlsSettings("127.0.0.1:0", "tls.crt", "tls.key", "ca.crt")
    with pytest.raises(SettingsError, match="tls: the files cannot be used"):
        tls_options(settings, files.folder / "t.yaml")
