import pytest

from extproc.log_settings import LogLevel, LogSettings
from extproc.settings_file import SettingsError
from extproc.tls import TlsSettings
from tokenext.engine import EngineName
from tokenext.exchange import OnOversize
from tokenext.handoff import Handoff
from tokenext.parity import OracleKind
from tokenext.settings import Limits, VerifySettings, check_address, decode, load

FULL = """
listen: unix:/run/tokenext.sock
admin: 127.0.0.1:9090
tls: {listen: '0.0.0.0:9200', certificate: tls.crt, key: tls.key, client_ca: ca.crt}
metadata_namespace: envoy.lb
log: {level: warning, exchange_ratio: 0.5}
prefix_cache: {budget_bytes: 1000000}
limits:
  {max_body_bytes: 1024, on_oversize: reject, deadline_ms: 100, workers: 2, max_queued: 0, drain_seconds: 1}
models:
- name: qwen3
  aliases: [Qwen/Qwen3-8B]
  source: /models/qwen3
  chat_template: /models/template.jinja
  chat_template_kwargs: {enable_thinking: false}
  max_length: 32768
  handoff: dynamo
  engine: huggingface
  verify: {engine: 'http://127.0.0.1:8000', kind: vllm, model: served, every_seconds: 60, at_start: false}
"""
MINIMAL = "listen: 127.0.0.1:9000\nmodels: [{name: m, source: /m}]\n"


def decoded(text: str):
    return decode(text.encode(), source="t.yaml")


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        decoded(text)
    return str(caught.value)


def test_every_key_is_read():
    settings = decoded(FULL)
    assert settings.listen == "unix:/run/tokenext.sock"
    assert settings.admin == "127.0.0.1:9090"
    assert settings.tls == TlsSettings("0.0.0.0:9200", "tls.crt", "tls.key", "ca.crt")
    assert settings.metadata_namespace == "envoy.lb"
    assert settings.log == LogSettings(LogLevel.WARNING, 0.5)
    assert settings.prefix_cache.budget_bytes == 1_000_000
    assert settings.limits == Limits(
        max_body_bytes=1024,
        on_oversize=OnOversize.REJECT,
        deadline_ms=100,
        workers=2,
        max_queued=0,
        drain_seconds=1,
    )
    (model,) = settings.models
    assert (model.name, model.aliases, model.source) == ("qwen3", ("Qwen/Qwen3-8B",), "/models/qwen3")
    assert model.chat_template == "/models/template.jinja"
    assert model.chat_template_kwargs == {"enable_thinking": False}
    assert model.max_length == 32768
    assert (model.handoff, model.engine) == (Handoff.DYNAMO, EngineName.HUGGINGFACE)
    assert model.verify == VerifySettings("http://127.0.0.1:8000", OracleKind.VLLM, "served", 60, False)


def test_what_is_left_out_has_defaults():
    settings = decoded(MINIMAL)
    assert settings.metadata_namespace == "tokenext"
    assert settings.limits == Limits()
    assert settings.prefix_cache.budget_bytes == 64 * 1024 * 1024
    (model,) = settings.models
    assert (model.handoff, model.engine, model.max_length) == (Handoff.NONE, EngineName.AUTO, None)
    assert model.verify is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "listn: x", "t.yaml: Object contains unknown field `listn`"),
        (
            MINIMAL + "tls: {listen: 'unix:/t', certificate: c, key: k}",
            "t.yaml: tls.listen: must be host:port, as in 127.0.0.1:9000",
        ),
        (MINIMAL + "exchange_log: false", "t.yaml: Object contains unknown field `exchange_log`"),
        (MINIMAL + "log: {exchange_ratio: 1.5}", "t.yaml: log.exchange_ratio: Expected `float` <= 1.0"),
        (MINIMAL + "log: {level: loud}", "t.yaml: log.level: Invalid enum value 'loud'"),
        (MINIMAL + "limits: {deadline: 3}", "t.yaml: limits: Object contains unknown field `deadline`"),
        (MINIMAL + "limits: {workers: 0}", "t.yaml: limits.workers: Expected `int` >= 1"),
        (MINIMAL + "limits: {max_body_bytes: -1}", "t.yaml: limits.max_body_bytes: "),
        (MINIMAL + "limits: {deadline_ms: 0}", "t.yaml: limits.deadline_ms: "),
        (MINIMAL + "limits: {on_oversize: drop}", "t.yaml: limits.on_oversize: Invalid enum value 'drop'"),
        (MINIMAL + "prefix_cache: {budget_bytes: -1}", "t.yaml: prefix_cache.budget_bytes: "),
        (MINIMAL + "prefix_cache: {bytes: 1}", "t.yaml: prefix_cache: Object contains unknown field `bytes`"),
        (MINIMAL + "admin: 9090", "t.yaml: admin: Expected `str | null`"),
        (MINIMAL + "admin: unix:/run/x", "t.yaml: admin: must be host:port, as in 127.0.0.1:9000"),
        ("models: [{name: m, source: /m}]", "t.yaml: Object missing required field `listen`"),
        ("listen: 127.0.0.1:1", "t.yaml: Object missing required field `models`"),
        ("listen: 127.0.0.1:1\nmodels: []", "t.yaml: models: "),
        (
            "listen: 127.0.0.1:1\nmodels: [{name: m}]",
            "t.yaml: models[0]: Object missing required field `source`",
        ),
        ("listen: 127.0.0.1:1\nmodels: [{name: '', source: /m}]", "t.yaml: models[0].name: "),
        (MINIMAL.replace("source", "max_length: 0, source"), "t.yaml: models[0].max_length: "),
        (MINIMAL.replace("source", "handoff: vlm, source"), "t.yaml: models[0].handoff: "),
        (MINIMAL.replace("source", "verify: {engine: here}, source"), "t.yaml: models[0].verify.engine: "),
        (
            MINIMAL.replace("source", "verify: {engine: 'http://e', every_seconds: 0}, source"),
            "t.yaml: models[0].verify.every_seconds: ",
        ),
        ("listen: [", "t.yaml: is not YAML: "),
        ("", "t.yaml: "),
    ],
)
def test_errors_name_the_file_the_key_and_the_rule(text, expected):
    assert problem(text).startswith(expected)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (
            "[{name: m, source: a}, {name: m, source: b}]",
            "models[1].name: 'm' is the name of models[0].name already",
        ),
        (
            "[{name: m, source: a}, {name: n, aliases: [x, m], source: b}]",
            "models[1].aliases[1]: 'm' is the name of models[0].name already",
        ),
        (
            "[{name: m, aliases: [m], source: a}]",
            "models[0].aliases[0]: 'm' is the name of models[0].name already",
        ),
    ],
)
def test_two_models_of_one_name_are_refused(models, expected):
    assert problem(f"listen: 127.0.0.1:1\nmodels: {models}") == f"t.yaml: {expected}"


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "localhost:0", "[::1]:9000", "unix:/run/x.sock"])
def test_addresses_to_listen_on(address):
    check_address(address, source="s", key="k", unix=True)


@pytest.mark.parametrize(
    "address", ["", "9000", ":9000", "host", "host:", "host:99999", "unix:x", "unix:", "a b:1"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(SettingsError, match=r"^s: k: "):
        check_address(address, source="s", key="k", unix=True)


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(MINIMAL)
    assert load(path).models[0].name == "m"
    path.write_text(MINIMAL + "admin: nowhere")
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: admin: ")
