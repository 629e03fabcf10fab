import pytest

from epp_adapter.records.callout_tls import CalloutTlsSettings
from epp_adapter.settings import (
    DynamoSettings,
    RoundRobinSettings,
    listen_address,
    load_settings,
    parse_settings,
)
from extproc.settings_file import SettingsError
from extproc.tls import TlsSettings

GOOD = """\
listen: unix:/run/epp.sock
admin: 127.0.0.1:9091
metadata_namespace: tokenext
endpoints: {file: endpoints.yaml, poll_seconds: 0.5}
strategies:
  dynamo: {kind: dynamo, endpoint: dyn.backend.generate, block_size: 16, discovery: file,
           request_plane: tcp, event_plane: nats, deadline_ms: 200}
  round-robin: {kind: round-robin}
default_strategy: dynamo
fallback: [round-robin]
"""


def parse(text: str = GOOD, **overrides):
    return parse_settings(text.encode(), source="epp.yaml", **overrides)


def test_a_complete_file_is_decoded():
    settings = parse()
    assert settings.strategies == {
        "dynamo": DynamoSettings(
            endpoint="dyn.backend.generate", block_size=16, discovery="file", deadline_ms=200
        ),
        "round-robin": RoundRobinSettings(),
    }
    assert settings.fallback == ("round-robin",)


def test_what_may_be_left_out_has_a_default():
    settings = parse(
        "{listen: '127.0.0.1:9002', endpoints: {file: e.yaml}, strategies: {rr: {kind: round-robin}},"
        " default_strategy: rr}"
    )
    assert (settings.admin, settings.fallback, settings.metadata_namespace) == (None, (), "tokenext")


def test_a_chain_is_the_named_strategy_then_the_others_of_the_fallback():
    settings = parse()
    assert settings.chain("dynamo") == ("dynamo", "round-robin")
    assert settings.chain("round-robin") == ("round-robin",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("default_strategy: dynamo", "default_strategy: dynmo"), "default_strategy: 'dynmo' is none of the"),
        (
            ("fallback: [round-robin]", "fallback: [rr]"),
            "fallback[0]: 'rr' is none of the strategies (dynamo, ",
        ),
        (("fallback: [round-robin]", "fallback: [dynamo, dynamo]"), "fallback[1]: dynamo stands here twice"),
        (("kind: round-robin", "kind: magic"), "strategies[...].kind: Invalid value 'magic'"),
        (
            ("kind: round-robin", "kind: round-robin, weight: 2"),
            "strategies[...]: Object contains unknown field",
        ),
        (("block_size: 16", "block_size: 0"), "strategies[...].block_size: Expected `int` >= 1"),
        (("discovery: file", "discovery: zookeeper"), "discovery: Invalid enum value 'zookeeper'"),
        (("deadline_ms: 200", "deadline_ms: 0"), "deadline_ms: Expected `int` >= 1"),
        (("poll_seconds: 0.5", "poll_seconds: 0"), "endpoints.poll_seconds: Expected `float` > 0"),
        (
            ("dyn.backend.generate", "backend"),
            "strategies.dynamo.endpoint: is not namespace.component.endpoint",
        ),
        (("  round-robin:", "  Round_Robin:"), "strategies.Round_Robin: a name is made of"),
        (("listen: unix:/run/epp.sock", "listen: /run/epp.sock"), "listen: is not unix:/path or host:port"),
        (("listen: unix:/run/epp.sock", "listen: 'unix:'"), "listen: is not unix:/path or host:port"),
        (("admin: 127.0.0.1:9091", "admin: unix:/x"), "admin: is not host:port"),
        (("admin:", "admn:"), "Object contains unknown field `admn`"),
        (("listen: unix:/run/epp.sock\n", ""), "Object missing required field `listen`"),
    ],
)
def test_a_mistake_is_refused_with_the_file_the_key_and_the_rule(change, message):
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert str(caught.value).startswith("epp.yaml: ")
    assert message in str(caught.value)


def test_the_command_line_takes_the_place_of_the_file():
    settings = parse(listen="127.0.0.1:9002", admin="[::1]:0")
    assert (settings.listen, settings.admin) == ("127.0.0.1:9002", "[::1]:0")


@pytest.mark.parametrize("option", ["listen", "admin"])
def test_a_mistake_on_the_command_line_names_the_option(option):
    with pytest.raises(SettingsError, match=f"--{option}: is not"):
        parse(**{option: "nowhere"})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load_settings(tmp_path / "none.yaml")


def test_tls_is_one_more_address_with_its_files():
    settings = parse(GOOD + 'tls: {listen: "0.0.0.0:9003", certificate: tls.crt, key: /keys/tls.key}\n')
    assert settings.tls == TlsSettings("0.0.0.0:9003", "tls.crt", "/keys/tls.key")


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ('{listen: "unix:/run/epp.sock", certificate: a, key: b}', r"tls\.listen: is not host:port"),
        ('{listen: "0.0.0.0:9003", certificate: a}', "key"),
        ('{listen: "0.0.0.0:9003", certificate: "", key: b}', "certificate"),
    ],
)
def test_a_mistake_in_tls_is_named(tls, message):
    with pytest.raises(SettingsError, match=message):
        parse(f"{GOOD}tls: {tls}\n")


@pytest.mark.parametrize(
    ("tokenization", "message"),
    [
        ("{tls: {ca: ca.crt}}", r"tokenization\.tls: needs host:port in `address`"),
        ('{address: "unix:/run/t.sock", tls: {ca: ca.crt}}', r"tokenization\.tls: needs host:port"),
        ('{address: "t:1", tls: {ca: ca.crt, key: k}}', "certificate and key need each other"),
        ('{address: "t:1", tls: {certificate: c, key: k}}', "ca"),
    ],
)
def test_a_mistake_in_the_tls_of_calls_is_named(tokenization, message):
    with pytest.raises(SettingsError, match=message):
        parse(f"{GOOD}tokenization: {tokenization}\n")


def test_calls_may_go_over_tls():
    settings = parse(GOOD + 'tokenization: {address: "t:9200", tls: {ca: ca.crt, server_name: tokenext}}\n')
    assert settings.tokenization.tls == CalloutTlsSettings("ca.crt", server_name="tokenext")


def test_an_address_is_split_for_a_socket():
    assert listen_address("[::1]:9091") == ("::1", 9091)
    assert listen_address("127.0.0.1:0") == ("127.0.0.1", 0)
