"""Who is in the pool: the chart's workers, and never tokenext, the picker, Envoy or the planes."""

import pytest

from tests.chart.matrix import WORKERS, merged
from tests.chart.rendering import pods, render

OURS = {"tokenext", "epp", "envoy", "nats", "etcd"}


@pytest.mark.parametrize("placement", ["filter", "service", "sidecar"])
@pytest.mark.parametrize("workers", ["mocker", "dynamo", "vllm"])
def test_the_pool_selects_the_workers_and_nobody_else(workers, placement):
    release = render(merged(WORKERS[workers], {"tokenext": {"placement": placement}}))
    selector = release.one("InferencePool")["spec"]["selector"]["matchLabels"].items()
    selected = {
        name for name, template in pods(release.objects) if selector <= template["metadata"]["labels"].items()
    }
    assert selected == {"worker"}
    assert {name for name, _ in pods(release.objects)} - OURS == {"worker"}


def test_a_graphs_workers_carry_the_pools_label():
    release = render(WORKERS["graph"])
    selector = release.one("InferencePool")["spec"]["selector"]["matchLabels"].items()
    (component,) = release.one("DynamoGraphDeployment")["spec"]["components"]
    assert selector <= component["podTemplate"]["metadata"]["labels"].items()


def test_labels_of_ones_own_give_way_to_what_selects_and_are_there_otherwise():
    values = {
        "commonLabels": {"team": "ml", "app.kubernetes.io/instance": "mine"},
        "tokenext": {"podLabels": {"team": "tokens"}},
    }
    labels = {name: template["metadata"]["labels"] for name, template in pods(render(values).objects)}
    assert (labels["tokenext"]["team"], labels["epp"]["team"]) == ("tokens", "ml")
    assert {each["app.kubernetes.io/instance"] for each in labels.values()} == {"rel"}


def test_two_releases_in_one_namespace_do_not_share_their_pools():
    first, second = (render(name=name) for name in ("one", "two"))
    selector = first.one("InferencePool")["spec"]["selector"]["matchLabels"].items()
    for _, template in pods(second.objects):
        assert not selector <= template["metadata"]["labels"].items()


def test_no_selector_of_one_component_finds_another():
    release = render(
        {
            "dynamo": {"discovery": "etcd", "etcd": {"enabled": True}},
            "epp": {"strategies": {"internal": {"kind": "internal"}}},
        }
    )
    templates = dict(pods(release.objects))
    for deployment in release.of("Deployment"):
        selector = deployment["spec"]["selector"]["matchLabels"]
        found = {
            name
            for name, template in templates.items()
            if selector.items() <= template["metadata"]["labels"].items()
        }
        assert found == {selector["app.kubernetes.io/component"]}
