"""What a settings file says of TLS to tokenext."""

from pathlib import Path
from typing import Annotated

import msgspec

from extproc.client_tls import ClientTls
from extproc.settings_file import SettingsError

__all__ = ["CalloutTlsSettings", "callout_tls"]

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


def callout_tls(settings: CalloutTlsSettings | None, config: Path) -> ClientTls | None:
    """What the settings file `config` asks for. Raises SettingsError where the files cannot be used."""
    if settings is None:
        return None
    folder, own = config.parent, (settings.certificate, settings.key)
    certificate, key = (None if each is None else folder / each for each in own)
    tls = ClientTls(folder / settings.ca, certificate, key, settings.server_name)
    try:
        tls.credentials()
    except OSError as error:
        problem = f"the files cannot be used: {error}"
        raise SettingsError(str(config), problem, "tokenization.tls") from None
    return tls
