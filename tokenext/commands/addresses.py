"""Addresses on the command line, which take the place of the settings file's."""

import argparse

import msgspec

from extproc.settings_file import SettingsError
from tokenext.settings import HttpSettings, Settings, check_address
from tokenext.supervisor import numbered

__all__ = ["add_addresses", "arguments_of_process", "overridden"]


def add_addresses(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `overridden` reads."""
    parser.add_argument("--listen", metavar="ADDR", help="serve here instead: unix:/path or host:port")
    parser.add_argument("--admin", metavar="ADDR", help="serve /metrics here instead: host:port")
    parser.add_argument("--tls-listen", metavar="ADDR", help="serve TLS here instead: host:port")
    parser.add_argument("--http-listen", metavar="ADDR", help="serve the HTTP API here instead: host:port")


def overridden(settings: Settings, options: argparse.Namespace) -> Settings:
    """The settings with the addresses of the command line. Raises SettingsError."""
    if options.listen is not None:
        check_address(options.listen, source="--listen", key=options.listen, unix=True)
        settings = msgspec.structs.replace(settings, listen=options.listen)
    if options.admin is not None:
        check_address(options.admin, source="--admin", key=options.admin, unix=False)
        settings = msgspec.structs.replace(settings, admin=options.admin)
    if options.tls_listen is not None:
        if settings.tls is None:
            raise SettingsError("--tls-listen", "the settings file has no `tls`, which names the certificate")
        check_address(options.tls_listen, source="--tls-listen", key=options.tls_listen, unix=False)
        tls = msgspec.structs.replace(settings.tls, listen=options.tls_listen)
        settings = msgspec.structs.replace(settings, tls=tls)
    if options.http_listen is not None:
        check_address(options.http_listen, source="--http-listen", key=options.http_listen, unix=False)
        http = msgspec.structs.replace(settings.http or HttpSettings("-"), listen=options.http_listen)
        settings = msgspec.structs.replace(settings, http=http)
    return settings


def arguments_of_process(settings: Settings, number: int) -> list[str]:
    """What gives process `number` of several its own addresses."""
    arguments = ["--listen", numbered(settings.listen, number)]
    if settings.admin is not None:
        arguments += ["--admin", numbered(settings.admin, number)]
    if settings.tls is not None:
        arguments += ["--tls-listen", numbered(settings.tls.listen, number)]
    if settings.http is not None:
        arguments += ["--http-listen", numbered(settings.http.listen, number)]
    return arguments
