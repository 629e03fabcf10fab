"""Schema, values, README and the services' own settings say the same."""

import json
from typing import get_args

import helm_python
import msgspec
import pytest
import yaml

from epp_adapter import settings as epp_settings
from epp_adapter.settings import Settings as EppSettings
from extproc.log_settings import LogLevel, LogSettings
from tests.chart import values_table
from tests.chart.matrix import MORE, merged
from tests.chart.rendering import CHART, render
from tokenext import settings as tokenext_settings
from tokenext.engine import EngineName
from tokenext.handoff import Handoff
from tokenext.profiles import ProfileName
from tokenext.settings import ModelSettings
from tokenext.settings import Settings as TokenextSettings

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("ratio", [0, 0.00001, 0.125, 1])
def test_a_share_of_exchanges_reaches_both_services_as_it_is(ratio):
    log = {"level": "debug", "exchangeRatio": ratio}
    release = render({"tokenext": {"log": log}, "epp": {"log": log}})
    settings = (
        tokenext_settings.decode(release.config("tokenext", "tokenext.yaml").encode(), source=""),
        epp_settings.parse_settings(release.config("epp", "epp.yaml").encode(), source=""),
    )
    assert [each.log for each in settings] == [LogSettings(LogLevel.DEBUG, ratio)] * 2


def test_one_secret_closes_both_admin_ports_and_prometheus_brings_its_token():
    values = {"adminToken": {"secretName": "s"}, "serviceMonitor": {"enabled": True}}
    release = render(values)
    for component, file in (("tokenext", "tokenext.yaml"), ("epp", "epp.yaml")):
        assert "admin_token_file: /etc/admin-token/token\n" in release.config(component, file)
        (endpoint,) = release.one("ServiceMonitor", f"-{component}")["spec"]["endpoints"]
        assert endpoint["authorization"] == {"credentials": {"name": "s", "key": "token"}}


def test_helm_finds_nothing_to_say_against_the_chart():
    report = helm_python.lint(CHART, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_the_readmes_table_is_what_schema_and_values_say():
    assert values_table.readme() == values_table.README.read_text(encoding="utf-8"), (
        "python -m tests.chart docs"
    )


def same_keys(schema, values, path):
    expected = set(schema["properties"]) - {"global"}
    assert expected == set(values), f"{path}: {expected ^ set(values)}"
    for name in expected:
        inner = schema["properties"][name]
        if "properties" in inner and inner["type"] == "object":
            same_keys(inner, values[name], f"{path}.{name}")


def test_every_value_has_a_default_and_every_default_is_known():
    same_keys(SCHEMA, VALUES, "values")


def test_every_value_is_described_in_a_sentence():
    for path, schema, _ in values_table.leaves(SCHEMA, VALUES):
        assert schema["description"].endswith("."), path
        assert "|" not in schema["description"], f"{path}: breaks the table"


def test_nothing_unknown_is_let_through():
    def closed(schema, path):
        if schema.get("type") == "object" and "properties" in schema:
            assert schema["additionalProperties"] is False or path.endswith("strategies.*"), path
            for name, inner in schema["properties"].items():
                closed(inner, f"{path}.{name}")
        if isinstance(schema.get("items"), dict):
            closed(schema["items"], f"{path}[]")

    closed(SCHEMA, "values")


def test_a_models_words_are_those_of_tokenexts_settings():
    properties = SCHEMA["properties"]["models"]["items"]["properties"]
    assert set(properties) == {each.name for each in msgspec.structs.fields(ModelSettings)}
    for name, values in (("handoff", Handoff), ("profile", ProfileName), ("engine", EngineName)):
        assert set(properties[name]["enum"]) == {each.value for each in values}


def test_the_kinds_of_strategies_are_those_of_the_pickers_settings():
    from epp_adapter.settings import StrategySettings

    kinds = SCHEMA["properties"]["epp"]["properties"]["strategies"]["additionalProperties"]["properties"][
        "kind"
    ]
    assert set(kinds["enum"]) == {each.__struct_config__.tag for each in get_args(StrategySettings)}


def test_every_section_of_the_services_settings_can_be_set_by_some_value():
    """The pool's own objects say what the others are in Kubernetes; `conformance` is for a test suite."""
    elsewhere = {"objectives", "model_rewrites", "conformance"}
    renders = [render(merged(values)) for values in MORE.values()]
    renders.append(render({"epp": {"models": {"qwen3-0.6b": {"strategy": "round-robin"}}}}))
    for component, settings in (("tokenext", TokenextSettings), ("epp", EppSettings)):
        written = {
            key
            for each in renders
            if component == "tokenext" or each.picks
            for key in yaml.safe_load(each.config(component, f"{component}.yaml"))
        }
        assert {field.name for field in msgspec.structs.fields(settings)} - elsewhere == written


def test_a_packaged_chart_renders_what_its_folder_does(tmp_path):
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packaged, helm_python.Chart.load(CHART) as folder:
        assert packaged.render({}, name="rel", namespace="ns") == folder.render(
            {}, name="rel", namespace="ns"
        )
