"""A server's certificate, read again whenever its files change: whoever renews it need not restart us.

gRPC asks at each handshake. Files that cannot be used, or are half written, leave the last good ones in use.
gRPC's own minimum is TLS 1.2.

`TlsSettings` is what both services' settings files have under `tls`.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import msgspec

from extproc.settings_file import SettingsError

__all__ = ["Certificates", "TlsOptions", "TlsSettings", "stamp", "tls_options"]

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int], ...]
_Path = Annotated[str, msgspec.Meta(min_length=1)]


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


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`listen` is host:port, beside the plain one. `certificate` and `key` are PEM files, relative to the
    settings file, read again when they change. `client_ca`: who must have signed a client's certificate;
    None: anybody may call.
    """

    listen: str
    certificate: _Path
    key: _Path
    client_ca: _Path | None = None


def tls_options(settings: TlsSettings | None, config: Path) -> TlsOptions | None:
    """What the settings file `config` asks for, with whole paths. Raises SettingsError where the files cannot
    be read, or do not fit each other.
    """
    if settings is None:
        return None
    folder = config.parent
    client_ca = None if settings.client_ca is None else folder / settings.client_ca
    options = TlsOptions(settings.listen, folder / settings.certificate, folder / settings.key, client_ca)
    try:
        Certificates(options).credentials()
    except OSError as error:
        raise SettingsError(str(config), f"the files cannot be used: {error}", "tls") from None
    return options


def stamp(*files: Path) -> _Stamp:
    """Changes when one of the files does. Raises OSError where there is none."""
    return tuple((found.st_mtime_ns, found.st_ino) for found in (each.stat() for each in files))


class Certificates:
    """Owns what the files held when they were last read and could be used."""

    def __init__(self, options: TlsOptions) -> None:
        self._options: Final = options
        self._seen: _Stamp = ()

    def credentials(self) -> Any:
        """For `add_secure_port`. Raises OSError where the files cannot be read or used."""
        self._seen = stamp(*self._files())
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._changed,  # type: ignore[arg-type]  # grpc-stubs does not know that None keeps what is
            require_client_authentication=self._options.client_ca is not None,
        )

    def _changed(self) -> Any | None:
        """What is to be used from now on; None: what was used. Called on threads of gRPC's; never raises."""
        try:
            found = stamp(*self._files())
            if found == self._seen:
                return None
            self._seen = found
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
