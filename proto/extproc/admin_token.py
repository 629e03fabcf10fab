"""The bearer token that an admin port may ask for (RFC 6750), from a file that is read at each request.

So a token that is exchanged counts from the next request on. While there is none, nobody is let in.
"""

import hmac
import logging
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError

__all__ = ["BearerToken", "bearer_token"]

_log = logging.getLogger(__name__)

_SCHEME: Final = "bearer"
_MAX_BYTES: Final = 4096


class _UnusableTokenError(ValueError):
    """The file has no token that a header could carry."""


class BearerToken:
    """Owns the path, and whether it has said that there is no token. May be asked by several threads."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._told = False

    def admits(self, authorization: str | None) -> bool:
        """Whether a request with this Authorization header may see everything. Never raises."""
        try:
            token = self._read()
        except (OSError, _UnusableTokenError) as error:
            if not self._told:
                self._told = True
                _log.error("%s: %s; the admin port lets nobody in", self._path, error)
            return False
        self._told = False
        scheme, _, given = (authorization or "").partition(" ")
        return scheme.lower() == _SCHEME and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), token
        )

    def check(self) -> None:
        """Raises OSError or ValueError where the file has no token now."""
        self._read()

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        token = text.strip()
        if not token:
            raise _UnusableTokenError("is empty")
        if len(text) > _MAX_BYTES:
            raise _UnusableTokenError(f"is longer than {_MAX_BYTES} bytes")
        if not token.isascii() or len(token.split()) > 1 or not token.decode("ascii").isprintable():
            raise _UnusableTokenError("is not one word of printable ASCII")
        return token


def bearer_token(name: str | None, config: Path) -> BearerToken | None:
    """The token of the file `name`, relative to the settings file `config`.

    Raises SettingsError where there is none; the message has no part of it.
    """
    if name is None:
        return None
    path = config.parent / name
    token = BearerToken(path)
    try:
        token.check()
    except OSError as error:
        raise SettingsError(
            str(config), f"{path} cannot be read: {error.strerror}", "admin_token_file"
        ) from None
    except ValueError as error:
        raise SettingsError(str(config), f"{path} {error}", "admin_token_file") from None
    return token
