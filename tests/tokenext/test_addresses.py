"""Addresses on the command line, and those of each of several processes."""

import argparse

import pytest

from extproc.settings_file import SettingsError
from tokenext.commands.addresses import add_addresses, arguments_of_process, overridden
from tokenext.settings import decode

PLAIN = "listen: 127.0.0.1:9000\nadmin: 127.0.0.1:9090\nmodels: [{name: m, source: /m}]\n"
TLS = PLAIN + "tls: {listen: '0.0.0.0:9200', certificate: tls.crt, key: tls.key}\n"


def settings(text: str, *arguments: str):
    parser = argparse.ArgumentParser()
    add_addresses(parser)
    return overridden(decode(text.encode(), source="t.yaml"), parser.parse_args(arguments))


def test_addresses_of_the_command_line_take_the_place_of_the_files():
    changed = settings(TLS, "--listen", "unix:/t", "--admin", "127.0.0.1:1", "--tls-listen", "127.0.0.1:2")
    assert changed.tls is not None
    assert (changed.listen, changed.admin, changed.tls.listen) == ("unix:/t", "127.0.0.1:1", "127.0.0.1:2")
    assert changed.tls.certificate == "tls.crt"


def test_without_any_the_file_has_its_say():
    assert settings(TLS) == decode(TLS.encode(), source="t.yaml")


@pytest.mark.parametrize(
    ("text", "arguments", "problem"),
    [
        (TLS, ("--tls-listen", "unix:/t"), "--tls-listen: unix:/t: must be host:port"),
        (PLAIN, ("--tls-listen", "127.0.0.1:1"), "--tls-listen: the settings file has no `tls`"),
        (PLAIN, ("--admin", "unix:/t"), "--admin: unix:/t: must be host:port"),
    ],
)
def test_a_bad_address_is_named_by_its_option(text, arguments, problem):
    with pytest.raises(SettingsError, match=problem):
        settings(text, *arguments)


def test_each_of_several_processes_has_the_next_port_of_every_address():
    whole = settings(TLS)
    third = settings(TLS, *arguments_of_process(whole, 2))
    assert third.tls is not None
    assert (third.listen, third.admin, third.tls.listen) == (
        "127.0.0.1:9002", "127.0.0.1:9092", "0.0.0.0:9202",
    )  # fmt: skip


def test_what_a_file_has_not_a_process_is_not_told():
    assert arguments_of_process(settings(PLAIN), 0) == [
        "--listen", "127.0.0.1:9000", "--admin", "127.0.0.1:9090",
    ]  # fmt: skip
