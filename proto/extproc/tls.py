"""A server's certificate, read again whenever its files change: whoever renews it need not restart us.

gRPC asks at each handshake. Files that cannot be used, or are half written, leave the last good ones in use.
gRPC's own minimum is TLS 1.2.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

__all__ = ["Certificates", "TlsOptions"]

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """One more address, host:port, that speaks TLS. The files are PEM.

    `client_ca`: clients must show a certificate that one of these has signed (mutual TLS); None: anybody may
    call.
    """

    listen: str
    certificate: Path
    key: Path
    client_ca: Path | None = None


class Certificates:
    """Owns what the files held when they were last read and could be used."""

    def __init__(self, options: TlsOptions) -> None:
        self._options: Final = options
        self._seen: _Stamp = ()

    def credentials(self) -> Any:
        """For `add_secure_port`. Raises OSError where the files cannot be read or used."""
        self._seen = self._stamp()
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._changed,  # type: ignore[arg-type]  # grpc-stubs does not know that None keeps what is
            require_client_authentication=self._options.client_ca is not None,
        )

    def _changed(self) -> Any | None:
        """What is to be used from now on; None: what was used. Called on threads of gRPC's; never raises."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            self._seen = stamp
            read = self._read()
        except OSError as error:  # ssl.SSLError is one
            _log.warning("%s cannot be used, the one before it stays: %s", self._options.certificate, error)
            return None
        _log.info("%s was read again", self._options.certificate)
        return read

    def _files(self) -> tuple[Path, ...]:
        options = self._options
        return tuple(
            each for each in (options.certificate, options.key, options.client_ca) if each is not None
        )

    def _stamp(self) -> _Stamp:
        return tuple((found.st_mtime_ns, found.st_ino) for found in (each.stat() for each in self._files()))

    def _read(self) -> Any:
        options = self._options
        # gRPC says of a pair that does not fit only that the address cannot be bound.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
        if options.client_ca is not None:
            context.load_verify_locations(options.client_ca)
        return grpc.ssl_server_certificate_configuration(
            [(options.key.read_bytes(), options.certificate.read_bytes())],
            None if options.client_ca is None else options.client_ca.read_bytes(),
        )
