"""TLS of a call to one of our services: whom we trust, and the certificate that we show."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from extproc.tls import stamp

__all__ = ["ClientTls"]


@dataclass(frozen=True, slots=True)
class ClientTls:
    """`ca` is a PEM file with who must have signed the server's certificate. `certificate` and `key` are
    ours, for a server that asks for one; both are there or both None. `server_name` is the name that the
    server's certificate must have; None: the host of the address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def files(self) -> tuple[Path, ...]:
        return tuple(each for each in (self.ca, self.certificate, self.key) if each is not None)

    def stamp(self) -> object:
        """Changes when a file does. Raises OSError."""
        return stamp(*self.files())

    def credentials(self) -> Any:
        """For a channel. Raises OSError where a file cannot be read or used."""
        self.stamp()  # names the file that is missing, which ssl does not
        # gRPC would take anything, and fail at each handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(self.ca.read_bytes())
        context.load_cert_chain(self.certificate, self.key)
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )
