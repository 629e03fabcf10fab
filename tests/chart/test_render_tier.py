"""tokenext without the chart's picker: who may ask it, and what is watched.

That no part of a chain is there, every render is asked (checks.py); what is refused is in test_refusals.py.
"""

import json

import pytest
import yaml

from tests.chart.matrix import MONITORED, TIER, merged
from tests.chart.rendering import CHART, render

KINDS = {
    "ConfigMap",
    "Deployment",
    "Pod",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
}


def test_a_tier_is_tokenext_and_what_belongs_to_it():
    release = render(TIER)
    assert {each["kind"] for each in release.objects} == KINDS
    more = render(merged(TIER, MONITORED, {"tokenext": {"autoscaling": {"enabled": True}}}))
    assert {each["kind"] for each in more.objects} - KINDS == {
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PrometheusRule",
        "ServiceMonitor",
    }


def test_one_service_has_the_http_port_and_the_one_of_grpc():
    ports = render(TIER).one("Service", "-tokenext")["spec"]["ports"]
    assert {each["name"]: each["port"] for each in ports} == {"grpc": 9000, "http": 8100}


@pytest.mark.parametrize(
    ("policy", "askers"),
    [
        ({}, {"podSelector": {}}),
        (
            {"gatewayNamespace": "llm-d"},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "llm-d"}}},
        ),
    ],
    ids=["its own namespace", "another"],
)
@pytest.mark.parametrize("placement", ["filter", "service"])
def test_pods_of_one_namespace_and_the_helm_test_may_ask_and_nobody_else(policy, askers, placement):
    values = {"networkPolicy": {"enabled": True, **policy}, "tokenext": {"placement": placement}}
    release = render(merged(TIER, values))
    asking, _ = release.one("NetworkPolicy")["spec"]["ingress"]
    tester, *others = asking["from"]
    test = release.one("Pod", "-test")["metadata"]["labels"]
    assert tester["podSelector"]["matchLabels"].items() <= test.items()
    assert others == [askers]
    assert {each["port"] for each in asking["ports"]} == {9000, 8100}


def test_alerts_are_those_of_tokenext_word_for_word():
    """And with a picker all of them."""
    kept = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    tokenext, epp = kept["groups"]
    assert (tokenext["name"], epp["name"]) == ("tokenext", "epp-adapter")
    assert render(merged(TIER, MONITORED)).one("PrometheusRule")["spec"] == {"groups": [tokenext]}
    assert render(MONITORED).one("PrometheusRule")["spec"] == kept


def dashboard(values):
    return json.loads(render(values).config("dashboard", "tokenext-chain.json"))


def test_the_dashboard_has_the_panels_of_tokenext_in_rows_without_a_gap():
    whole, alone = dashboard(MONITORED), dashboard(merged(TIER, MONITORED))
    panels = alone["panels"]
    of_a_picker = [each for each in whole["panels"] if "epp_" in json.dumps(each["targets"])]
    assert len(panels) == len(whole["panels"]) - len(of_a_picker) > 5
    assert [(each["gridPos"]["y"], each["gridPos"]["x"]) for each in panels] == [
        (row * 8, column * 8) for row in range(8) for column in range(3)
    ][: len(panels)]
    titles = {each["title"]: each["targets"] for each in whole["panels"]}
    assert all(titles[each["title"]] == each["targets"] for each in panels)
    assert alone["uid"] != whole["uid"], "one Grafana may have both"


def test_the_helm_test_asks_the_http_port_wherever_it_is_on_and_no_picker_where_there_is_none():
    def script(values):
        (container,) = render(values).one("Pod", "-test")["spec"]["containers"]
        return container["args"][0]

    render_url = "tokenext.ns.svc.cluster.local:8100/v1/chat/completions/render"
    assert render_url in script(TIER)
    assert "-epp-pods:" not in script(TIER)
    http = {"tokenext": {"http": {"enabled": True}}}
    assert render_url in script(http)
    assert "-envoy:80/v1/chat/completions" in script(http)
    assert "render" not in script({})
    for values in ({}, TIER, http, merged(http, {"tls": {"enabled": True, "secretName": "t"}})):
        compile(script(values), "helm test", "exec")
