"""TLS of the call to tokenext: whom we trust, and the certificate that we show."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import msgspec

from extproc.settings_file import SettingsError
from extproc.tls import stamp

__all__ = ["CalloutTls", "CalloutTlsSettings", "callout_tls"]

_Name = Annotated[str, msgspec.Meta(min_length=1)]


class CalloutTlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ca` is a PEM file with who must have signed tokenext's certificate; `certificate` and `key` are ours,
    where tokenext asks for one. Paths are relative to the settings file. `server_name` is the name that
    tokenext's certificate must have; None: the host of the address.
    """

    ca: _Name
    certificate: _Name | None = None
    key: _Name | None = None
    server_name: _Name | None = None


@dataclass(frozen=True, slots=True)
class CalloutTls:
    """The same with whole paths. `certificate` and `key` are both there or both None."""

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


def callout_tls(settings: CalloutTlsSettings | None, config: Path) -> CalloutTls | None:
    """What the settings file `config` asks for. Raises SettingsError where the files cannot be used."""
    if settings is None:
        return None
    folder, own = config.parent, (settings.certificate, settings.key)
    certificate, key = (None if each is None else folder / each for each in own)
    tls = CalloutTls(folder / settings.ca, certificate, key, settings.server_name)
    try:
        tls.credentials()
    except OSError as error:
        problem = f"the files cannot be used: {error}"
        raise SettingsError(str(config), problem, "tokenization.tls") from None
    return tls
