"""docs/install.md and docs/reuse.md: commands render, values exist, and what they say of objects holds."""

import itertools
import json
import re
import shlex

import helm_python
import pytest
import yaml

from tests.chart.matrix import TIER, merged
from tests.chart.rendering import CHART, REPOSITORY, render

GUIDE = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
FILES = {
    match[1]: yaml.safe_load(text)
    for kind, text in FENCES
    if kind == "yaml" and (match := re.match(r"# (\S+\.yaml)\n", text))
}
REUSE = (REPOSITORY / "docs" / "reuse.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for text in (GUIDE, REUSE)
    for line in re.sub(r"\\\n\s*", " ", text).splitlines()
    if line.strip().startswith("helm install ")
]


def values_of(command):
    words = shlex.split(command)
    values = {}
    for option, value in itertools.pairwise(words):
        if option == "-f":
            values = merged(values, FILES[value])
        if option == "--set":
            values = merged(values, helm_python.parse_set_string(value))
    return values


def test_the_guide_has_a_command_for_every_provider():
    providers = {values_of(each).get("provider", "standalone") for each in COMMANDS}
    assert providers == {"standalone", "istio", "envoygateway", "kgateway"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_install_of_the_guide_renders(command):
    assert f" {CHART.relative_to(REPOSITORY)} " in command
    name = shlex.split(command)[2]
    release = render(values_of(command), name=name)
    assert release.picks == (name == "chain")
    assert release.one("Deployment", f"{name}-tokenext-chain-tokenext")


def test_every_value_that_the_guide_names_exists():
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def exists(path):
        here = schema
        for name in path.split("."):
            here = here.get("properties", {}).get(name)
            if here is None:
                return False
        return True

    top = "|".join(schema["properties"])
    named = set(re.findall(rf"`((?:{top})\.[A-Za-z.]+)", GUIDE)) - {"envoy.lb", "tokenext.v", "kgateway.dev"}
    assert len(named) >= 15
    assert {each for each in named if not exists(each)} == set()


def test_the_objects_that_the_guide_names_are_rendered():
    release = render(name="chain")
    names = {each["metadata"]["name"] for each in release.objects}
    assert set(re.findall(r"\bchain-tokenext-chain-[a-z-]+", GUIDE)) <= names


def test_the_addresses_of_a_render_tier_are_those_of_its_services():
    release = render(TIER, name="render")
    ports = {
        (each["metadata"]["name"], port["port"])
        for each in release.of("Service")
        for port in each["spec"]["ports"]
    }
    named = re.findall(r"(render-[a-z-]+)\.llm\.svc\.cluster\.local:(\d+)", REUSE)
    assert len(named) == 2
    assert {(name, int(port)) for name, port in named} <= ports


def test_metrics_that_the_guide_names_are_those_of_the_services():
    sources = "".join(
        (REPOSITORY / file).read_text(encoding="utf-8")
        for file in ("epp_adapter/metrics.py", "tokenext/metrics.py")
    )
    for name in set(re.findall(r"`((?:epp_adapter|tokenext)_\w+?)(?:_total)?[{`]", GUIDE)):
        assert name in sources, name
