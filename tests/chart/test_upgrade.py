"""An upgrade changes nothing that Kubernetes keeps from changing: rendered as version N, and as N+1."""

import itertools
import shutil

import pytest
import yaml

from tests.chart.matrix import MORE, PROVIDERS, ROUTED, TIER, combinations, merged
from tests.chart.rendering import CHART, render

# https://kubernetes.io/docs: what an API server refuses to change in an object that is there.
IMMUTABLE = {
    "Deployment": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")),
    "Service": (("spec", "clusterIP"),),
    "RoleBinding": (("roleRef",),),
    "Job": (("spec", "template"), ("spec", "selector")),
    "PersistentVolumeClaim": (("spec",),),
}


def fixed(release):
    """Object -> its immutable fields."""
    found = {}
    for each in release.objects:
        name = each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]
        for path in IMMUTABLE.get(each["kind"], ()):
            value = each
            for key in path:
                value = value.get(key) if value else None
            found[*name, path] = value
    return found


def assert_upgradable(before, after):
    old, new = fixed(before), fixed(after)
    for field in old.keys() & new.keys():
        assert old[field] == new[field], field


@pytest.fixture(scope="module")
def next_chart(tmp_path_factory):
    """The chart of the next version: another Chart.yaml, as a release has it."""
    folder = tmp_path_factory.mktemp("next") / CHART.name
    shutil.copytree(CHART, folder)
    file = folder / "Chart.yaml"
    chart = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**chart, "version": "0.2.0", "appVersion": "0.2.0"}))
    return folder


@pytest.mark.parametrize(
    "name", [*PROVIDERS, "everything-optional", "dns-pool", "etcd", "render-tier-monitored"]
)
def test_the_next_version_keeps_what_cannot_change(name, next_chart):
    values = (
        merged(PROVIDERS[name], ROUTED if name != "standalone" else {}) if name in PROVIDERS else MORE[name]
    )
    before, after = render(values), render(values, chart=next_chart, upgrade=True)
    assert_upgradable(before, after)
    assert fixed(before).keys() == fixed(after).keys(), "nothing is renamed"
    versions = {each["metadata"]["labels"]["app.kubernetes.io/version"] for each in after.objects}
    assert versions == {"0.2.0"}


def test_new_values_keep_what_cannot_change():
    """Whatever of the matrix a release was, it can become the one after it."""
    some = [render(values) for _, values in itertools.islice(combinations(), 0, None, 12)]
    for before, after in itertools.pairwise(some):
        assert_upgradable(before, after)


def test_a_chain_becomes_a_tier_and_the_other_way_and_tokenexts_objects_stay():
    def of_tokenext(release):
        labels = [
            (each, each["metadata"]["labels"]["app.kubernetes.io/component"]) for each in release.objects
        ]
        return {
            (each["kind"], each["metadata"]["name"]) for each, component in labels if component == "tokenext"
        }

    chain, tier = render({"tokenext": {"http": {"enabled": True}}}), render(TIER)
    assert_upgradable(chain, tier)
    assert of_tokenext(chain) == of_tokenext(tier)


def test_the_comparison_sees_a_selector_that_changes():
    before, after = render(), render()
    after.one("Deployment", "-epp")["spec"]["selector"] = {"matchLabels": {"version": "2"}}
    with pytest.raises(AssertionError, match="selector"):
        assert_upgradable(before, after)


def test_an_upgrade_rolls_pods_when_their_settings_change_and_only_then(next_chart):
    def checksums(release):
        return {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]
            .get("annotations", {})
            .get("checksum/config")
            for each in release.of("Deployment")
        }

    before = checksums(render())
    assert checksums(render({"networkPolicy": {"enabled": True}})) == before
    changed = checksums(render({"tokenext": {"limits": {"deadline_ms": 1000}}}))
    different = {name for name in before if before[name] != changed[name]}
    assert different == {"rel-tokenext-chain-tokenext"}
