"""TLS of a server: renewed without a restart; closed to clients without a certificate, where asked."""

import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.exchange import PassingExchange
from extproc.server import Server, ServerOptions
from extproc.tls import TlsOptions

PEM = serialization.Encoding.PEM
NAME = "picker"


class Issued:
    """A certificate and its key, signed by itself or by another one."""

    def __init__(self, signer=None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME} {id(self)}")])
        now = datetime.now(UTC)
        by = signer or self
        made = (
            x509.CertificateBuilder(by.name, self.name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .sign(by.key, hashes.SHA256())
        )
        self.certificate = made.public_bytes(PEM)
        self.private = self.key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Files:
    """The server's files, as something that renews certificates writes them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self._written = 0

    def write(self, issued, *, key=None) -> None:
        self._put("tls.crt", issued.certificate)
        self._put("tls.key", issued.private if key is None else key)

    def options(self, client_ca=None) -> TlsOptions:
        ca = None
        if client_ca is not None:
            self._put("ca.crt", client_ca.certificate)
            ca = self.folder / "ca.crt"
        return TlsOptions("127.0.0.1:0", self.folder / "tls.crt", self.folder / "tls.key", ca)

    def _put(self, name, data) -> None:
        draft = self.folder / "draft"
        draft.write_bytes(data)
        self._written += 1
        os.utime(draft, ns=(self._written, self._written))  # a clock may not have moved between two writes
        draft.replace(self.folder / name)


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
